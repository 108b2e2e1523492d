"""Rules of catalog.py, on real files in a home of the test's own."""

from __future__ import annotations

import asyncio
import gc
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import START, FakeClock
from vaultd.catalog import Catalog, CatalogWatch
from vaultd.config import Settings, load_settings
from vaultd.errors import BadProfile, Misconfigured, UnknownIdentity, UnknownProfile
from vaultd.files import Files
from vaultd.model.credentials import Identity
from vaultd.model.plan import Callers, Overrides, Plans
from vaultd.model.planner import make_plan

SERIAL = "arn:aws:iam::123456789012:mfa/franklin"
FRANKLIN = Identity("identity", "123456789012", "arn:aws:iam::123456789012:user/franklin", SERIAL, "WXYZ", START)
WEB = "[profile web-admin]\nsource_profile = identity\nrole_arn = arn:aws:iam::234567890123:role/WebAdmin\n"


class CountingFiles(Files):
    """Counts what a look costs."""

    def __init__(self) -> None:
        super().__init__()
        self.stats = 0
        self.reads = 0

    def stat_key(self, path: Path) -> tuple[int, ...] | None:
        self.stats += 1
        return super().stat_key(path)

    def read_config(self, path: Path) -> bytes | None:
        self.reads += 1
        return super().read_config(path)


@dataclass
class Home:
    """A home with `.aws`, and the watch over it."""

    path: Path
    clock: FakeClock = field(default_factory=FakeClock)
    files: CountingFiles = field(default_factory=CountingFiles)
    identities: list[Identity] = field(default_factory=lambda: [FRANKLIN])

    @property
    def config(self) -> Path:
        return self.path / ".aws/config"

    def write(self, text: str, name: str = "config") -> None:
        path = self.path / ".aws" / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_text(text)
        path.chmod(0o600)

    def watch(self, settings: Settings | None = None) -> CatalogWatch:
        return CatalogWatch(
            files=self.files,
            settings=settings or Settings(),
            environ={"HOME": str(self.path)},
            config_path=self.config,
            identities=lambda: tuple(self.identities),
            clock=self.clock,
        )


@pytest.fixture
def home(tmp_path: Path) -> Home:
    tmp_path.chmod(0o700)
    return Home(tmp_path)


def trouble(watch: CatalogWatch) -> str | None:
    return watch.trouble


def raised(call: Callable[[], object]) -> str:
    with pytest.raises(Misconfigured) as caught:
        call()
    return caught.value.message


def test_a_catalog_is_what_engine_and_web_see(home: Home) -> None:
    """It implements model.plan.Plans."""
    home.write(WEB + '[profile "team prod"]\nsource_profile = identity\n')
    catalog: Plans = home.watch().current
    assert catalog.names() == ("web-admin", "team prod")
    assert catalog.slug("team prod") == "team~20prod"
    assert catalog.plan("web-admin").account_id == "234567890123"
    concrete = home.watch().current
    assert concrete.by_slug("team~20prod") == "team prod"
    assert concrete.by_slug("team prod") is None
    assert concrete.by_slug("nobody") is None


def test_plans_are_built_once_per_snapshot(home: Home) -> None:
    """The same object for the same question; another one for other overrides."""
    home.write(WEB)
    catalog = home.watch().current
    assert catalog.plan("web-admin") is catalog.plan("web-admin", Overrides())
    shaped = catalog.plan("web-admin", Overrides(policy="{}"))
    assert shaped is catalog.plan("web-admin", Overrides(policy="{}"))
    assert shaped.last.fingerprint != catalog.plan("web-admin").last.fingerprint


def test_summaries_need_no_identity(home: Home) -> None:
    """interface.md §6's static part, for every profile, whatever is wrong with it."""
    home.write(
        WEB
        + "[profile me]\nsource_profile = identity\n[profile other]\nsource_profile = nobody\n"
        + "[profile loop]\nsource_profile = pool\n[profile pool]\nsource_profile = loop\n"
    )
    catalog = home.watch().current
    assert catalog.summary("web-admin") == {
        "profile": "web-admin",
        "account_id": "234567890123",
        "role_arn": "arn:aws:iam::234567890123:role/WebAdmin",
        "identity": "identity",
        "mfa_serial": SERIAL,
    }
    nothing = {"account_id": None, "role_arn": None, "mfa_serial": None}
    me = {"profile": "me", "identity": "identity", "account_id": "123456789012", "mfa_serial": SERIAL}
    assert catalog.summary("me") == nothing | me
    assert catalog.summary("other") == {**nothing, "profile": "other", "identity": "nobody"}
    assert catalog.summary("loop") == {**nothing, "profile": "loop", "identity": None}
    assert catalog.trouble_of("web-admin") is None
    assert isinstance(catalog.trouble_of("other"), UnknownIdentity)
    assert isinstance(catalog.trouble_of("loop"), BadProfile)


def test_a_profile_that_tools_get_through_another(home: Home) -> None:
    """credential_process with our own client: its row is that of the profile which is served; control: any other
    command, and a role of its own, which SDKs put before that line.
    """
    ours = "credential_process = vault-client credential-process web-admin\n"
    own = "role_arn = arn:aws:iam::999999999999:role/Own\nsource_profile = identity\n"
    home.write(f"{WEB}[profile keys]\n{ours}[profile other]\ncredential_process = /bin/x\n[profile own]\n{ours}{own}")
    catalog = home.watch().current

    assert [catalog.served_as(name) for name in catalog.names()] == ["web-admin", "web-admin", "other", "own"]
    assert catalog.summary("keys") == {**catalog.summary("web-admin"), "profile": "keys"}
    assert catalog.summary("own")["account_id"] == "999999999999"


def test_names_are_safe_for_a_terminal(home: Home) -> None:
    """A hostile section name goes through shown() in the summary (interface.md §6)."""
    home.write('[profile "a\x1b[31m"]\nsource_profile = i\x07d\n')
    catalog = home.watch().current
    assert catalog.summary("a\x1b[31m")["profile"] == "a?[31m"
    assert catalog.summary("a\x1b[31m")["identity"] == "i?d"


async def test_a_look_costs_stats_once_a_second(home: Home) -> None:
    """Never on a GET, at most once a second, and a read only after a change (architecture.md §1)."""
    home.write(WEB)
    watch = home.watch()
    reads, number = home.files.reads, watch.current.number
    home.files.stats = 0
    for _ in range(50):
        assert not await watch.look()
    assert home.files.stats == 0
    await home.clock.advance(1.5)
    assert not await watch.look()
    assert not await watch.look()
    assert (home.files.stats, home.files.reads) == (1, reads)
    home.write(WEB + "[profile new]\nsource_profile = identity\n")
    assert not await watch.look()
    await home.clock.advance(1.5)
    assert await watch.look()
    assert watch.current.number == number + 1
    assert watch.current.plan("new").profile == "new"


async def test_a_snapshot_stands_while_a_new_one_comes(home: Home) -> None:
    """Frozen: whoever holds it sees one state of the files."""
    home.write(WEB)
    watch = home.watch()
    held = watch.current
    assert held.plan("web-admin").identity == "identity"
    assert held.plan("web-admin", Overrides(policy="{}")).identity == "identity"
    home.write("[profile other]\n")
    await home.clock.advance(2)
    assert await watch.look()
    assert not held._plans  # gone already, some at a time
    assert held.names() == ("web-admin",)
    assert held.plan("web-admin").identity == "identity"
    assert watch.current.names() == ("other",)


async def test_a_broken_file_keeps_the_last_good_one(home: Home) -> None:
    """And says so; what was added in the broken part is 78 with file:line, not an unknown profile."""
    home.write(WEB)
    watch = home.watch()
    home.write(WEB + "rubbish\n[profile new]\n")
    await home.clock.advance(2)
    assert await watch.look()
    broken = "~/.aws/config:4: this line is neither `[section]` nor `key = value`; write one of them."
    assert trouble(watch) == broken
    assert watch.current.plan("web-admin").account_id == "234567890123"
    assert raised(lambda: watch.current.plan("new")) == broken
    home.write(WEB + "[profile new]\nsource_profile = identity\n")
    await home.clock.advance(2)
    assert await watch.look()
    assert trouble(watch) is None
    assert watch.current.plan("new").profile == "new"
    with pytest.raises(UnknownProfile, match="Did you mean new"):
        watch.current.plan("news")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[profile a]\n\xff\n", "~/.aws/config:2: this is not UTF-8 text; save "),
        (b"x = 1\n", "~/.aws/config:1: this line comes before any section; write `[default]`"),
    ],
)
def test_a_start_with_an_unreadable_file(home: Home, content: bytes, expected: str) -> None:
    """There is a catalog without profiles, and every profile is 78 with the file's own trouble."""
    home.write("")
    home.config.write_bytes(content)
    watch = home.watch()
    assert watch.trouble is not None
    assert watch.trouble.startswith(expected)
    assert watch.current.names() == ()
    assert raised(lambda: watch.current.plan("a")) == watch.trouble


async def test_what_the_cli_overlooks_is_told_beside_the_list(home: Home) -> None:
    """A section that nobody reads, and a file that cannot be read, each with the path that can be opened."""
    home.write(WEB + '[a]\nregion = eu-west-1\n[profile "unclosed]\n[plugins]\n')
    watch = home.watch()
    line = WEB.count("\n") + 1
    bare = f"~/.aws/config:{line} [a] is overlooked by the AWS CLI and by vaultd: for a profile, write `[profile a]`."
    assert watch.current.trouble()[0] == bare
    assert watch.current.trouble()[1].startswith(f'~/.aws/config:{line + 2} [profile "unclosed] is overlooked')
    assert len(watch.current.trouble()) == 2  # [plugins] is the CLI's own
    with pytest.raises(UnknownProfile) as unknown:
        watch.current.plan("a")
    assert unknown.value.message == bare
    home.write(WEB + "[profile b\n")
    await home.clock.advance(2)
    await watch.look()
    assert watch.current.trouble()[0] == (
        f"~/.aws/config:{line}: this section header lacks its closing bracket; write it as `[profile NAME]`."
    )


def test_a_path_outside_the_home_is_whole(home: Home, tmp_path: Path) -> None:
    """What a message names can be opened."""
    home.write("x = 1\n")
    watch = CatalogWatch(
        files=home.files,
        settings=Settings(),
        environ={"HOME": "/nonexistent"},
        config_path=home.config,
        identities=lambda: (),
        clock=home.clock,
    )
    assert (watch.trouble or "").startswith(f"{home.config}:1: ")


def test_an_identity_is_no_profile(home: Home) -> None:
    """Its name is what people remember: told what to write, with or without a file."""
    for text in (WEB, ""):
        home.write(text)
        with pytest.raises((UnknownProfile, Misconfigured)) as told:
            home.watch().current.plan(FRANKLIN.name)
        assert told.value.message == (
            f"{FRANKLIN.name} is a stored identity, and there is no profile of that name: write `[profile NAME]` with "
            f"`source_profile = {FRANKLIN.name}` into ~/.aws/config, then type `vault-client use NAME`."
        )


def test_without_a_file(home: Home) -> None:
    """Not an error of the start: the first question names the file and what to write."""
    watch = home.watch()
    assert watch.trouble is None
    assert raised(lambda: watch.current.plan("a")) == (
        f"{home.config} has no profile: write `[profile NAME]` with role_arn and source_profile into it"
    )


async def test_ownership_of_the_config(home: Home) -> None:
    """Group-writable is refused by name (interface.md §1); a link to a file of the user's own is read."""
    home.write(WEB)
    home.config.chmod(0o620)
    watch = home.watch()
    assert watch.trouble is not None
    assert str(home.config) in watch.trouble
    home.config.chmod(0o600)
    await home.clock.advance(2)
    assert await watch.look()
    assert watch.current.names() == ("web-admin",)
    dotfiles = home.path / "dotfiles"
    dotfiles.mkdir(mode=0o700)
    home.config.rename(dotfiles / "config")
    home.config.symlink_to(dotfiles / "config")
    assert home.watch().current.names() == ("web-admin",)


def test_an_identity_that_is_added(home: Home) -> None:
    """`reload` makes the plan that was refused before."""
    home.write(WEB)
    home.identities.clear()
    watch = home.watch()
    number = watch.current.number
    with pytest.raises(UnknownIdentity, match=r"`vault-client add identity`$"):
        watch.current.plan("web-admin")
    home.identities.append(FRANKLIN)
    watch.reload()
    assert watch.current.number == number + 1
    assert watch.current.plan("web-admin").identity == "identity"


async def test_a_file_that_did_not_change_is_not_parsed_again(home: Home) -> None:
    """An identity that comes or goes makes a new snapshot of the same parse; the look after it is not put off, and
    reads a file that changed, or that could not be read.
    """
    home.write(WEB)
    watch = home.watch()
    before, reads = watch.current.profiles, home.files.reads
    watch.reload()
    assert watch.current.profiles is before
    assert not await watch.look()
    assert home.files.reads == reads
    home.write("rubbish\n" + WEB)
    watch.reload()
    assert trouble(watch) is None
    assert await watch.look()
    assert trouble(watch) is not None
    assert watch.current.profiles is before
    watch.reload()
    assert trouble(watch) is not None
    assert await watch.look()  # again, and as bad
    assert home.files.reads == reads + 2
    home.write(WEB + "[profile other]\n")
    watch.reload()
    assert await watch.look()
    assert trouble(watch) is None
    assert watch.current.names() == ("web-admin", "other")


class SlowFiles(CountingFiles):
    """A read that lasts until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.collected: list[bool] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def read_config(self, path: Path) -> bytes | None:
        self.collected.append(gc.isenabled())
        assert self.go_on.wait(20)
        return super().read_config(path)


class SlowParse(CountingFiles):
    """What was read is handed on when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.has_read, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def read_config(self, path: Path) -> bytes | None:
        content = super().read_config(path)
        self.has_read.set()
        assert self.go_on.wait(20)
        return content


def dying(path: Path) -> bytes:
    raise MemoryError(path)


async def test_a_file_that_was_read_leaves_no_cycle_behind(home: Home) -> None:
    """What lives when many profiles are set aside is never walked over again: the parser's 20 MB of cycles, for 10,000
    profiles and each change of their file, would stay.
    """
    sections = 1500
    home.write("".join(WEB.replace("web-admin", f"p{n}") for n in range(sections)))
    watch = home.watch()
    gc.collect()
    gc.disable()
    try:
        home.write("".join(WEB.replace("web-admin", f"q{n}") for n in range(sections)))
        await home.clock.advance(2)
        aside = gc.get_freeze_count()
        assert await watch.look()
        assert gc.get_freeze_count() > aside + sections  # control: they were
        gc.unfreeze()
        assert gc.collect() < sections
    finally:
        gc.unfreeze()
        gc.enable()


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_loop_goes_on_while_a_file_is_read(home: Home) -> None:
    """In a thread, one reading at a time for all who come; who leaves does not end it, and the snapshot stands."""
    files = home.files = SlowFiles()
    home.write(WEB)
    watch = home.watch()
    held, reads = watch.current, files.reads
    home.write(WEB + "[profile other]\nsource_profile = identity\n")
    await home.clock.advance(2)
    files.go_on.clear()
    looks = [asyncio.ensure_future(watch.look()) for _ in range(3)]
    await _turns(20)
    await home.clock.advance(2)
    looks.append(asyncio.ensure_future(watch.look()))
    await _turns(20)
    looks.pop(0).cancel()
    await _turns(20)
    assert watch.current is held
    assert not any(look.done() for look in looks)
    home.identities.clear()
    watch.reload()  # an identity goes meanwhile: nothing is read for it, and it stays gone
    assert watch.current.names() == ("web-admin",)
    files.go_on.set()
    assert await asyncio.gather(*looks) == [True] * 3
    assert files.reads == reads + 1
    assert watch.current.names() == ("web-admin", "other")
    assert watch.current.identities == {}
    # nothing of a parse is walked over while it is made
    assert files.collected == [True, False]
    assert gc.isenabled()


async def test_an_edit_while_the_file_is_read(home: Home) -> None:
    """Who comes after it does not go by what was read before it."""
    files = home.files = SlowParse()
    home.write(WEB)
    watch = home.watch()
    home.write(WEB + "[profile second]\nsource_profile = identity\n")
    await home.clock.advance(2)
    files.go_on.clear()
    files.has_read.clear()
    first = asyncio.ensure_future(watch.look())
    assert await asyncio.to_thread(files.has_read.wait, 20)
    home.write(WEB + "[profile third]\nsource_profile = identity\n")
    await home.clock.advance(2)
    later = asyncio.ensure_future(watch.look())
    await _turns(20)
    files.go_on.set()

    assert all(await asyncio.gather(first, later))
    assert watch.current.names() == ("web-admin", "third")


async def test_a_reading_that_dies_is_repeated(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file may never be changed again."""
    home.write(WEB)
    watch = home.watch()
    home.write(WEB + "[profile second]\nsource_profile = identity\n")
    await home.clock.advance(2)
    with monkeypatch.context() as dies:
        dies.setattr(home.files, "read_config", dying)
        with pytest.raises(MemoryError):
            await watch.look()
    await home.clock.advance(2)

    assert await watch.look()
    assert watch.current.names() == ("web-admin", "second")


def test_settings_shape_plans(home: Home) -> None:
    """config.toml's sections reach the planner."""
    home.write(WEB)
    settings = load_settings(
        '[sessions]\nmfa_duration = "1h"\nrole_session_name = "{profile}"\n[aws]\nsts_region_fallback = "eu-west-1"\n'
        '[identities.identity]\nmfa_serial = "GAHT12345678"\nregion = "eu-central-1"\n'
        '[profiles.web-admin]\nmfa_max_age = "30m"\nprotected = true\nallow_executables = ["/a"]\nrelays = ["ssh"]\n'
        "[profiles.web-amin]\nprotected = false\n",
        path="config.toml",
    )
    catalog = home.watch(settings).current
    mfa, role = catalog.plan("web-admin").steps
    assert catalog.plan("web-admin").callers == Callers(True, ("/a",), ("ssh",))
    assert (mfa.duration, mfa.mfa_serial) == (timedelta(hours=1), "GAHT12345678")
    assert (role.endpoint.region, role.endpoint.fallback_region) == ("eu-central-1", "eu-west-1")
    assert role.mfa_max_age == timedelta(minutes=30)
    assert role.role is not None
    assert role.role.role_session_name == "web-admin"
    (problem,) = catalog.problems
    assert problem == (
        "config.toml [profiles.web-amin] names no profile of ~/.aws/config, so nothing is done by it: "
        "write `[profiles.web-admin]` or remove the table, then type `vaultd restart`"
    )


def test_a_thousand_profiles(home: Home) -> None:
    """Plans are made when asked for, and the whole snapshot stays below 10 MB (performance.md row 6)."""
    home.write("".join(WEB.replace("web-admin", f"p{n}").replace("WebAdmin", f"Role{n}") for n in range(1000)))
    gc.collect()
    tracemalloc.start()
    try:
        catalog = home.watch().current
        gc.collect()
        bare = tracemalloc.get_traced_memory()[0]
        assert not catalog._plans
        plans = [catalog.plan(name) for name in catalog.names()]
        whole = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len({plan.last.fingerprint for plan in plans}) == 1000
    assert bare < 2_500_000
    assert whole < 8_000_000


def test_plans_of_overrides_do_not_fill_the_memory(home: Home) -> None:
    """Policies of grants are bounded in number: the oldest goes, alone, and never a plan of a profile by itself."""
    home.write(WEB)
    catalog: Catalog = home.watch().current
    shaped = [Overrides(policy=f'{{"n":{n}}}') for n in range(5000)]
    plain = catalog.plan("web-admin")
    plans = [catalog.plan("web-admin", each) for each in shaped]
    assert len(catalog._plans) <= 4097
    assert catalog.plan("web-admin") is plain
    assert all(catalog.plan("web-admin", shaped[n]) is plans[n] for n in range(1000, 5000))
    assert catalog.plan("web-admin", shaped[0]) is not plans[0]  # control


def test_as_many_plans_as_profiles_are_kept(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each `list` of 5,000 asks for all of them, in one order: each is made once, and what is wrong found out once. So
    many are set aside from the collector.
    """
    made: list[str] = []

    def counted(*args: Any) -> Any:
        made.append(args[3])
        return make_plan(*args)

    monkeypatch.setattr("vaultd.catalog.make_plan", counted)
    home.write(
        "".join(WEB.replace("web-admin", f"p{n}").replace("WebAdmin", f"Role{n}") for n in range(5000))
        + "[profile lost]\nsource_profile = nobody\n"
    )
    catalog = home.watch().current
    aside = gc.get_freeze_count()
    try:
        for _ in range(2):
            assert [name for name in catalog.names() if catalog.trouble_of(name)] == ["lost"]
    finally:
        frozen = gc.get_freeze_count()
        gc.unfreeze()
    assert len(made) == 5001
    assert frozen > aside + 5000
    first, second = catalog.trouble_of("lost"), catalog.trouble_of("lost")
    assert isinstance(first, UnknownIdentity)
    assert isinstance(second, UnknownIdentity)
    assert first is not second  # a traceback that grew with each look
    assert first.message == second.message
    for _ in range(2):
        with pytest.raises(UnknownProfile):
            catalog.plan("nope")
    assert made[-2:] == ["nope"] * 2  # what callers ask for has no end, so it is not kept


def test_what_status_looks_at(home: Home) -> None:
    """The profiles of the cells that there are, and those that cannot be planned, in file order."""
    home.write(WEB + "[profile lost]\nsource_profile = nobody\n" + WEB.replace("web-admin", "same"))
    catalog = home.watch().current
    assert catalog.marked({catalog.plan("web-admin").last.fingerprint}) == ["web-admin"]
    for name in ("same", "lost"):
        catalog.trouble_of(name)
    assert catalog.marked({catalog.plan("web-admin").last.fingerprint}) == ["web-admin", "lost", "same"]
    assert catalog.marked(()) == ["lost"]
