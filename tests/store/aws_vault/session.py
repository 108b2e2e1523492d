"""One case on a private bus with a real gnome-keyring: `[*PRIVATE_BUS, python, "-m", …, CASE]`. Prints JSON.

The home directory holds the collection; the daemon is this process's own.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Any

import secretstorage
from secretstorage.collection import Collection, get_all_collections
from secretstorage.util import DBusAddressWrapper, format_secret, open_session

from tests.fakes import FakeClock
from tests.store.gnome_session import gnome_keyring, outcome
from vaultd.engine.seams import ForeignKey, ForeignStore
from vaultd.files import Files
from vaultd.store.aws_vault import AwsVault

SOURCE = ForeignStore("secret-service", "awsvault")


def vault(clock: FakeClock | None = None) -> AwsVault:
    return AwsVault(Files(), clock=clock or FakeClock())


def told(found: tuple[ForeignKey, ...]) -> dict[str, Any]:
    return {
        each.name: each.wrong if each.key is None else [each.key.access_key_id, each.key.secret_access_key.reveal()]
        for each in found
    }


async def write(program: str) -> object:
    with gnome_keyring(unlock=True):
        await asyncio.to_thread(subprocess.run, [program, "secret-service"], check=True, timeout=60)
    return "written"


async def read() -> object:
    with gnome_keyring(unlock=True):
        return {
            "all": told(await vault().read(SOURCE, passphrase=None, names=())),
            "named": told(await vault().read(SOURCE, passphrase=None, names=("50% off", "nobody"))),
            "other": await outcome(
                vault().read(ForeignStore("secret-service", "elsewhere"), passphrase=None, names=())
            ),
        }


async def drop() -> object:
    """One is deleted; one that was changed since it was read is not; one that is gone is no error."""
    reader = vault()
    with gnome_keyring(unlock=True):
        (one,) = await reader.read(SOURCE, passphrase=None, names=("identity",))
        (two,) = await reader.read(SOURCE, passphrase=None, names=("50% off",))
        _change("50% off")
        said = [await outcome(reader.drop(SOURCE, each)) for each in (one, one, two)]
        left = [each.name for each in await reader.read(SOURCE, passphrase=None, names=())]
        return {"said": said, "left": left, "sessions": _labels()}


async def planted() -> object:
    """Another program's items among them: twice the name, another key's content, no JSON, and no profile at all."""
    with gnome_keyring(unlock=True), closing(secretstorage.dbus_init()) as bus:
        await vault().read(SOURCE, passphrase=None, names=())
        collection = _collection(bus)
        found = next(each for each in collection.get_all_items() if each.get_label() == "identity")
        collection.create_item("50% off", {"profile": "50% off", "by": "x"}, found.get_secret())
        collection.create_item("moved", {"profile": "moved"}, found.get_secret())
        collection.create_item("text", {"profile": "text"}, b"no JSON")
        collection.create_item("unnamed", {}, b'{"Key": "unnamed", "Data": "!"}')
        return told(await vault().read(SOURCE, passphrase=None, names=()))


async def locked() -> object:
    """A collection with a password is locked and nobody is there to ask: positive control first."""
    source = ForeignStore("secret-service", "my-vault")
    with gnome_keyring(unlock=True):
        await vault().read(SOURCE, passphrase=None, names=())
        _with_password("my-vault")
        before = told(await vault().read(source, passphrase=None, names=()))
        with closing(secretstorage.dbus_init()) as bus:
            _collection(bus, "my_2dvault").lock()
        return {"before": before, "after": await outcome(vault().read(source, passphrase=None, names=()))}


def _with_password(label: str) -> None:
    """As the desktop's own program makes one: over D-Bus alone, a person would be asked for the password."""
    with closing(secretstorage.dbus_init()) as bus:
        session = open_session(bus)
        internal = DBusAddressWrapper(
            "/org/freedesktop/secrets", "org.gnome.keyring.InternalUnsupportedGuiltRiddenInterface", bus
        )
        named = {"org.freedesktop.Secret.Collection.Label": ("s", label)}
        (path,) = internal.call(
            "CreateWithMasterPassword", "a{sv}(oayays)", named, format_secret(session, b"password", "text/plain")
        )
        of_identity = next(each for each in _collection(bus).get_all_items() if each.get_label() == "identity")
        Collection(bus, path, session).create_item("identity", {"profile": "identity"}, of_identity.get_secret())


async def frozen() -> object:
    """The daemon is stopped: the loop goes on, and 30 s of the clock end the call."""
    clock = FakeClock()
    reader = vault(clock)
    with gnome_keyring(unlock=True) as daemon:
        before = await outcome(reader.read(SOURCE, passphrase=None, names=()))
        daemon.send_signal(signal.SIGSTOP)
        call = asyncio.create_task(outcome(reader.read(SOURCE, passphrase=None, names=())))
        await clock.advance(29.9)
        early = call.done()
        await clock.advance(0.1)
        said = await call
        daemon.send_signal(signal.SIGCONT)
        return {"before": before, "early": early, "said": said}


def _collection(bus: Any, name: str = "awsvault") -> Any:
    return next(each for each in get_all_collections(bus) if each.collection_path.endswith(f"/{name}"))


def _change(label: str) -> None:
    with closing(secretstorage.dbus_init()) as bus:
        found = next(each for each in _collection(bus).get_all_items() if each.get_label() == label)
        found.set_secret(found.get_secret().replace(b"aws-vault", b"AWS-vault"), "application/json")


def _labels() -> list[str]:
    with closing(secretstorage.dbus_init()) as bus:
        return sorted(str(each.get_label()) for each in _collection(bus).get_all_items())


CASES: dict[str, Callable[..., Awaitable[object]]] = {
    each.__name__: each for each in (write, read, drop, planted, locked, frozen)
}


async def main(case: str, *arguments: str) -> None:
    print(json.dumps(await CASES[case](*arguments)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
    sys.stdout.flush()
    os._exit(0)  # a call that hangs in a thread must not keep the test waiting
