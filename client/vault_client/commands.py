"""Which commands there are, what each takes, and what `--help` says of it.

Rule: one row tells all of a command, to the help, to the completion and to cli.py, which reads command lines by it.
"""

from __future__ import annotations

#: Pages of the console as people call them, to `login --service`: the first ones for its help, all of them for the
#: completion. It takes any other, too; the daemon knows where a page has another name (vaultd/model/console.py).
PAGES = (
    "s3", "ec2", "elasticbeanstalk", "acm", "apigateway", "athena", "billing", "cloudformation", "cloudfront",
    "cloudtrail", "cloudwatch", "config", "dynamodb", "ecr", "ecs", "eks", "eventbridge", "glue", "iam", "kms",
    "lambda", "rds", "route53", "secretsmanager", "sns", "sqs", "ssm", "stepfunctions", "vpc",
)  # fmt: skip
_OPTIONS = {
    "abandon": "delete the new key that is not in use yet; the old one stays",
    "all": "every grant",
    "backend=B": "file or secret-service, where aws-vault keeps its keys; else as aws-vault would find out",
    "check": "ask AWS, too, what takes no code and changes nothing: whose key it is, which MFA devices it lists",
    "container": "in a Firefox container or Chrome profile of its own: two accounts side by side",
    "delete-source": "delete each key there, after it was stored and read back",
    "duration=D": "ask AWS for sessions of this length: 45m, 2h (a new MFA code may be needed above 1h)",
    "env": "static keys in the environment, for tools that know no endpoint; they end with the session",
    "follow": "go on as lines are written (also -f)",
    "grace=D": "keep the old key Inactive for so long before it is deleted: 24h (default), 7d, 0s",
    "fix": "show what is safe to mend (modes of vaultd's own files, left-over tokens, variables), ask, and do it",
    "format=F": "env (default), json, process, ini, dotenv, powershell or fish",
    "from-credentials-file": "take the key from the section of that name in ~/.aws/credentials",
    "from-env": "take the key from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "imds": "the EC2 metadata endpoint, for tools that know no container endpoint",
    "json": "one JSON object on stdout, for scripts",
    "logout-first": "sign the browser out of the console first, where AWS wants that",
    "mfa-serial=ARN": "the MFA device, where it cannot be detected",
    "plain": "with --watch a line for each change instead of a table, for screen readers (VAULTD_PLAIN=1: always)",
    "profile=P": "only this profile's lines",
    "region=R": "this region instead of the profile's",
    "sdk": "where each SDK would get its credentials from in this shell",
    "replace": "replace the key that is stored under that name",
    "service=S": f"the page to open: {', '.join(PAGES[:3])}, …",
    "shell=S": "bash, zsh, sh, fish or pwsh, where the calling shell is not recognised",
    "stdin": "read it from stdin instead of the terminal",
    "stdout": "print the sign-in URL, which is a credential for 15 minutes, and open nothing",
    "token-code=CODE": "the MFA code, if one is needed; - reads one line of stdin",
    "undo": "set the old key Active again, for what still needs it",
    "watch": "a live table until q or Ctrl-C: time left, questions to answer in place, grants, denials",
    "yes": "go on without asking, after showing what will be done",
}
#: Where a command means something else by an option.
_OWN = {
    ("doctor", "profile=P"): "--sdk for a tool that is told --profile P",
    ("login", "duration=D"): "a console session of this length: 45m, 8h (above 1h it takes a code of its own)",
    ("login", "region=R"): "the console's region instead of the profile's",
}
_EXAMPLES = {
    "shell-init": (
        'bash, in ~/.bashrc:  eval "$(vault-client shell-init bash)"',
        'zsh, in ~/.zshrc:    eval "$(vault-client shell-init zsh)"',
        "fish, in config.fish: vault-client shell-init fish | source",
        "pwsh, in $PROFILE:    vault-client shell-init pwsh | Out-String | Invoke-Expression",
    ),
    "completion": ('eval "$(vault-client completion bash)"', "vault-client completion fish | source"),
    "prompt": (r"""bash: PS1='${VAULTD_PROFILE:+[$(vault-client prompt)] }\$ '""",),
    "use": (
        'eval "$(vault-client use PROFILE)"',
        'eval "$(vault-client use --imds PROFILE)"',
        "with shell integration (shell-init), no eval:  vault-client use PROFILE, and back:  vault-client use -",
    ),
    "login": ("vault-client login PROFILE --service s3", "vault-client login --logout-first PROFILE"),
    "export": ('eval "$(vault-client export PROFILE)"', "vault-client export PROFILE --format dotenv > .env"),
    "credential-process": (
        "in ~/.aws/config, in a profile of its own, with quotes as a shell has them:",
        "    credential_process = vault-client credential-process PROFILE",
        "    credential_process = vault-client credential-process 'team prod'",
    ),
    "exec": ("vault-client exec PROFILE -- terraform apply", "vault-client exec --imds PROFILE -- CMD"),
}


#: Operands of a command that takes as many as there are.
_MANY = 10_000


class Command:
    """One row of the table. `call` is module:function; `operands` are those of the usage line."""

    __slots__ = ("call", "most", "name", "operands", "options", "summary", "tail")

    def __init__(self, name: str, operands: str, options: str, call: str, summary: str) -> None:
        self.name = name
        self.operands = operands
        self.options = options.split()
        self.call = call
        self.summary = summary
        self.tail = "--" in operands
        self.most = _MANY if operands.endswith("…]") else 1 if operands else 0

    @property
    def least(self) -> int:
        """How many operands there must be."""
        return 0 if not self.operands or self.operands.startswith("[") else 1


_TABLE = (
    Command("add", "IDENTITY", "replace stdin from-env from-credentials-file mfa-serial=ARN yes json", "keys:add",
            "store a long-term access key: asks for it, verifies it with AWS, finds its MFA device"),
    Command("identities", "", "json", "keys:identities", "list the stored keys"),
    Command("remove", "IDENTITY", "yes", "keys:remove", "forget a key, its sessions and the grants that need it"),
    Command("import", "aws-credentials|aws-vault [NAME…]", "delete-source backend=B stdin yes json", "importing:run",
            "store keys that lie in ~/.aws/credentials or in aws-vault: shows them, asks once, verifies each"),
    Command("rotate", "IDENTITY", "grace=D undo abandon token-code=CODE json", "rotating:rotate",
            "put a new access key in the place of the old one, step by step; again: go on where it stopped"),
    Command("use", "[PROFILE]", "imds region=R duration=D shell=S token-code=CODE", "point:use",
            'point this shell at a profile: eval "$(vault-client use PROFILE)", or typed bare for a subshell'),
    Command("unuse", "", "shell=S", "point:unuse", 'undo use: eval "$(vault-client unuse)"'),
    Command("exec", "[PROFILE] -- CMD…", "imds env region=R duration=D token-code=CODE", "point:exec_command",
            "become CMD with a profile in its environment, until CMD ends"),
    Command("list", "", "json", "show:list_profiles", "every profile: account, role, identity, MFA, session state"),
    Command("status", "", "json watch plain", "show:status", "the daemon, its sessions, grants and open questions"),
    Command("explain", "PROFILE", "check json", "explaining:explain",
            "how a profile gets its session, step by step, and what would go wrong"),
    Command("mfa", "[IDENTITY]", "token-code=CODE", "sessions:mfa", "answer the open question, or open a session"),
    Command("refresh", "PROFILE", "token-code=CODE", "sessions:refresh", "get a new session now"),
    Command("clear", "[PROFILE]", "", "sessions:clear", "drop a profile's sessions, or all, MFA sessions too"),
    Command("lock", "", "", "sessions:lock", "forget keys and sessions in memory and serve nothing"),
    Command("unlock", "", "stdin", "sessions:unlock", "open the store again"),
    Command("grants", "", "json", "show:grants", "who holds a token, for which profile, since when, last use"),
    Command("revoke", "[GRANT]", "all", "sessions:revoke", "end a grant, or all of them"),
    Command("export", "PROFILE", "format=F token-code=CODE", "carry:export", "print a session's keys"),
    Command("login", "[PROFILE]", "service=S region=R duration=D logout-first container stdout token-code=CODE",
            "login:login", "open the AWS console in a browser, signed in as the profile's role"),
    Command("credential-process", "PROFILE", "", "carry:credential_process",
            "for credential_process in ~/.aws/config: never asks here, waits until somebody answered"),
    Command("doctor", "", "sdk profile=P fix yes json", "doctor:doctor",
            "what keeps this shell's tools from vaultd, and the remedy for each"),
    Command("log", "", "follow json profile=P", "show:log", "the audit log: who was given what, and why not"),
    Command("shell-init", "bash|zsh|fish|pwsh", "", "functions:shell_init",
            "shell integration: what an rc file evaluates, so that use and unuse change the shell itself"),
    Command("completion", "bash|zsh|fish|pwsh", "", "completion:completion", "print the completion alone"),
    Command("prompt", "", "", "promptline:prompt", "profile·time-left, for a prompt; nothing where nothing is in use"),
)  # fmt: skip
COMMANDS = {command.name: command for command in _TABLE}


def overview() -> str:
    """`vault-client --help`."""
    rows = "\n".join(f"  {command.name:<20}{command.summary}" for command in _TABLE)
    return (
        "usage: vault-client COMMAND …\n\n"
        "Points shells, commands and tools at AWS profiles that vaultd keeps fresh.\n\n"
        f"{rows}\n\nEach has --help (or `help COMMAND`). Also: vault-client --version.\n\n"
        "Exit status: 0 ok, 1 refused, 2 usage, 3 a person is needed and no terminal is there, 69 vaultd is\n"
        "not running, 75 try again later, 78 a configuration file needs a change; exec ends with the command's own.\n"
    )


def usage(command: Command) -> str:
    """`vault-client COMMAND --help`."""
    first, dashes, last = command.operands.partition(" -- ")
    brackets = " ".join(f"[--{option.replace('=', ' ')}]" for option in command.options)
    line = " ".join(part for part in ("usage: vault-client", command.name, first, brackets) if part)
    rows = "".join(f"  --{option.replace('=', ' '):<24}{told}\n" for option, told in option_rows(command.name))
    shown = "".join(f"  {each}\n" for each in _EXAMPLES.get(command.name, ()))
    parts = (f"{line}{dashes}{last}\n", f"{command.summary}\n", rows, f"For example:\n{shown}" if shown else "")
    return "\n".join(part for part in parts if part)


def option_rows(name: str) -> list[tuple[str, str]]:
    """Each option of a command, as the table has it (`region=R`), and what it means there."""
    return [(option, _OWN.get((name, option), _OPTIONS[option])) for option in COMMANDS[name].options]
