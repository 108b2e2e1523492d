"""Region → partition, hosts and fallback; which endpoint a key may be sent to.

Rule: STS is called in the identity profile's region, with one configured fallback, never at the global endpoint
(aws-facts §1.4). An endpoint override is honoured only on loopback or on an allowed host (security.md T11).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where STS and IAM calls of a step go. `url` None: AWS's own regional host for `region`.

    `sts_url` and `iam_url` are overrides (tests, proxies) that passed the rule above; `ca_bundle` is the profile's.
    """

    region: str
    sts_url: str | None = None
    iam_url: str | None = None
    use_fips: bool = False
    use_dualstack: bool = False
    ca_bundle: str | None = None
    fallback_region: str | None = None
