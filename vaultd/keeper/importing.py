"""Keys of other programs' stores on their way into ours: offered, adopted, and deleted there at last.

Rule: nothing is deleted in a foreign store before our own has given the same key back, read anew from where it lies;
whatever ends an import half-way, the same calls go on from there (security.md §3.2).
"""

from __future__ import annotations

import logging
from dataclasses import replace

from vaultd.engine.seams import ForeignKey, ForeignKeys, ForeignStore, Kin, Offer
from vaultd.errors import BadRequest, NotFound, NotImported
from vaultd.keeper.custody import Identities
from vaultd.model.credentials import IdentityKey
from vaultd.model.importing import called
from vaultd.model.secret import Secret
from vaultd.model.text import shown

log = logging.getLogger(__name__)

_AGAIN = "`vault-client import aws-vault`"


class KeyImport:
    """What the keeper does for the seam `Importer`; verifying and storing is `Identities.add`."""

    def __init__(self, foreign: ForeignKeys, identities: Identities) -> None:
        self._foreign = foreign
        self._identities = identities

    async def offers(
        self, source: ForeignStore, *, passphrase: Secret | None, names: tuple[str, ...]
    ) -> tuple[Offer, ...]:
        """See the seam."""
        found = await self._foreign.read(source, passphrase=passphrase, names=names)
        return tuple([await self._offer(each) for each in found])

    async def _offer(self, found: ForeignKey) -> Offer:
        identity = called(found.name)
        if found.key is None:
            return Offer(found.name, identity or "", wrong=found.wrong, ends=found.ends)
        ending = found.key.access_key_id[-4:]
        if identity is None:
            return Offer(
                found.name, "", ending, wrong="no identity can have its name; type `vault-client add IDENTITY`"
            )
        key, stored = replace(found.key, identity=identity), await self._identities.read_back(identity)
        if _same(stored, key):
            return Offer(found.name, identity, ending, held="same")
        return Offer(found.name, identity, ending, held="no" if stored is None else "other", kin=await self.kin(key))

    async def key(self, source: ForeignStore, name: str, *, passphrase: Secret | None) -> IdentityKey:
        """The key under the name that it is to have here. Raises NotFound, BadRequest."""
        found, identity = await self._one(source, name, passphrase=passphrase), called(name)
        if found.key is None or identity is None:
            why = found.wrong or "no identity can have its name; type `vault-client add IDENTITY`"
            raise BadRequest(f"{shown(name)} cannot be imported: {why}")
        return replace(found.key, identity=identity)

    async def discard(self, source: ForeignStore, name: str, *, passphrase: Secret | None) -> None:
        """See the seam."""
        found = await self._one(source, name, passphrase=passphrase)
        identity = called(name)
        if found.key is None or identity is None or not await self.holds(replace(found.key, identity=identity)):
            raise NotImported(
                f"{shown(name)} in aws-vault's store is not what is stored here, so it is not deleted there: type "
                f"{_AGAIN}"
            )
        await self._foreign.drop(source, found)
        log.info("delete source-key backend=%s name=%s", source.backend, shown(name))

    async def holds(self, key: IdentityKey) -> bool:
        """See the seam."""
        return _same(await self._identities.read_back(key.identity), key)

    async def kin(self, key: IdentityKey) -> Kin:
        """See the seam."""
        for name in [each.name for each in self._identities.all()]:
            for line in self._identities.lines(name):
                if line.state == "pending" or (line.state == "active" and name == key.identity):
                    continue
                if not key.access_key_id.endswith(line.identity.key_ending):  # read none that it cannot be
                    continue
                if _same(await self._identities.stored(name, line.uuid), key):
                    return Kin(name, old=line.state == "retired")
        return Kin()

    async def _one(self, source: ForeignStore, name: str, *, passphrase: Secret | None) -> ForeignKey:
        found = await self._foreign.read(source, passphrase=passphrase, names=(name,))
        if not found:
            raise NotFound(f"aws-vault's store has no key {shown(name)}: type {_AGAIN} to see which it has")
        return found[0]


def _same(stored: IdentityKey | None, key: IdentityKey) -> bool:
    if stored is None or stored.access_key_id != key.access_key_id:
        return False
    return stored.secret_access_key == key.secret_access_key
