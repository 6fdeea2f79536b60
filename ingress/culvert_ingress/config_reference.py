"""`docs/config.md`, made from the table in `config_keys`.

`python -m culvert_ingress.config_reference > docs/config.md` writes it.

Responsible for: the reference of every key of `config.yml`. A test compares the file in the repository with `render`,
so that the table, the behaviour and the documentation cannot drift apart.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from culvert_ingress.config_keys import ORIGIN_REQUEST, RULE, TOP_LEVEL, Key, Verdict

__all__ = ["render"]

_INTRODUCTION = """\
# `config.yml`

<!-- Made by `python -m culvert_ingress.config_reference`; edit ingress/culvert_ingress/config_keys.py instead. -->

Outside Kubernetes a connector reads a `config.yml` with cloudflared's grammar:

```yaml
tunnel: my-tunnel
credentials-file: ./my-tunnel.json
relay: relay.example.com:443
ingress:
  - hostname: app.example.com
    service: http://localhost:3000
  - hostname: "*.dev.example.com"
    path: ^/api/
    service: https://localhost:8443
    originRequest: {noTLSVerify: true}
  - service: http_status:404
```

Rules are tried in the file's order and the first that matches answers; the last must match everything, and only the
last may. `culvert tunnel ingress validate` prints OK or every problem with the number of its rule;
`culvert tunnel ingress rule URL` prints the rule that would answer a URL.

Hostnames are compared in lower case, without a trailing dot, as A-labels. `*.example.com` matches names below
`example.com` at any depth, not `example.com` itself. IP addresses, ports and underscores are refused, and so are rules
that an earlier rule shadows, paths, queries and user names in a service's URL, and keys that stand twice.

Durations are written as `30s`, `1m30s` or `250ms`. Values are those of YAML 1.2: `true` and `false`, not `yes` and
`no`. Anchors, aliases and `<<` may be used.

Every key of cloudflared's is either honoured, harmless (culvert warns that it has no effect) or refused (an error that
says what to do instead; a value that only switches the thing off is accepted). Any other key is an error.
"""

_SECTIONS: tuple[tuple[str, Mapping[str, Key]], ...] = (
    ("At the top of the file", TOP_LEVEL),
    ("In a rule of `ingress`", RULE),
    ("In `originRequest`, of the file or of a rule", ORIGIN_REQUEST),
)

_COLUMNS: tuple[tuple[Verdict, str, str], ...] = (
    (Verdict.HONOURED, "Honoured", "value"),
    (Verdict.HARMLESS, "Harmless: a warning", "why nothing is lost"),
    (Verdict.REFUSED, "Refused: an error", "what to do instead"),
)


def render() -> str:
    """The whole text of `docs/config.md`."""
    parts = [_INTRODUCTION]
    for title, table in _SECTIONS:
        parts.append(f"\n## {title}\n")
        for verdict, heading, column in _COLUMNS:
            rows = {name: key for name, key in table.items() if key.verdict is verdict}
            if rows:
                parts.append(f"\n### {heading}\n\n| key | {column} |\n|---|---|\n")
                parts.extend(f"| `{name}` | {key.text.replace('|', chr(92) + '|')} |\n" for name, key in rows.items())
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.write(render())
