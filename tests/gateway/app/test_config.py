"""The config: reports every problem at once, in one sentence with path and line; parses valid files."""

import json
import os
from pathlib import Path

import pytest

from gateway.app.config import load_config, parse_config
from gateway.config.checks.people import EMPTY_SHA256
from gateway.config.problems import ConfigProblems
from gateway.config.schema import build_schema
from rows import each_row

BASE = """\
servers:
  iam: {command: [x]}
policy:
  default: require_approval
"""
JWT = BASE + "url: https://mcp\njwt: [{issuer: https://id, jwks: https://id/keys}]\n"
ANY = JWT.replace("}]", ", any_subject: true}]")
SHA, OTHER = "a" * 64, "b" * 64


def problems(text: str, environ=None, files=None) -> list[str]:
    def read_file(name):
        if files and name in files:
            return files[name]
        raise FileNotFoundError(2, "No such file or directory")

    with pytest.raises(ConfigProblems) as found:
        parse_config(text, environ or {}, read_file)
    return [str(problem) for problem in found.value.problems]


def oauth(server: str, options: str) -> str:
    return f"servers:\n  iam:\n    {server}\n    oauth: {{{options}}}\npolicy: {{default: deny}}\n"


@each_row("url", ["https://id.example/token", "http://127.0.0.1:9/t", "http://[::1]/t", "http://localhost/t"])
def test_a_token_url_is_https_or_on_this_machine(url):
    good = parse_config(
        oauth("url: 'http://x'", f"token_url: '{url}', client_id: a, client_secret: b"), {}, str
    )
    assert good.servers["iam"].oauth.token_url == url


def test_the_smallest_config_has_sensible_defaults():
    good = parse_config(BASE, {}, str)
    assert good.listen == "127.0.0.1:8808"
    assert good.inbox.listen == "127.0.0.1:8809"
    assert good.approvals.expire_after == "15m"
    assert good.approvals.requester_may_approve is False
    assert repr(good) == "<Config>"


BROKEN = {
    "a typo": (BASE.replace("require_approval", "requre_approval"), "policy.default: 'requre_approval' is not one of allow, deny, require_approval (did you mean require_approval?).  (line 4)"),
    "an unknown key": (BASE + "polcy: {}\n", "polcy: there is no key 'polcy' here (did you mean policy?).  (line 5)"),
    "a key inside a rule": (BASE + "  tools:\n    a: {acton: deny}\n", "policy.tools.a.acton: there is no key 'acton' here (did you mean action?).  (line 6)"),
    "a rule in a list": (BASE + "  tools:\n    a:\n      - {action: allow}\n      - {action: alow}\n", "policy.tools.a[1].action: 'alow' is not one of allow, deny, require_approval (did you mean allow?).  (line 8)"),
    "a duplicate key": (BASE + "  tools:\n    a: {action: allow}\n    a: {action: deny}\n", "The key a appears twice; remove one of them.  (line 7)"),
    "an unset variable": (BASE + "store: 'sqlite:///${NOWHERE}'\n", "store: the environment variable NOWHERE is not set.  (line 5)"),
    "an unreadable file": (BASE + "store: 'sqlite:///${file:/no/such}'\n", "store: the file /no/such cannot be read (No such file or directory).  (line 5)"),
    "a lone surrogate": (BASE + 'store: "sqlite:///\\ud800"\n', "store: this is not valid Unicode text.  (line 5)"),
    "a lone surrogate in a key": (BASE + 'hosts: []\ngroups: {"\\udfff": []}\n', "groups: this is not valid Unicode text.  (line 6)"),
    "a huge number": (BASE + f"  tools: {{a: {{approvals: 0x{'f' * 5000}}}}}\n", "policy.tools.a.approvals: this number is too large.  (line 5)"),
    "a huge number as a key": (BASE + f"groups:\n  ? 0x{'f' * 5000}\n  : []\n", "groups: this is not valid Unicode text.  (line 5)"),
    "a problem below a number": (BASE + "groups:\n  5:\n    - '${X}'\n", "groups.5[0]: the environment variable X is not set.  (line 7)"),
    "bad CEL": (BASE + "  tools:\n    a: {when: 'args.x >', action: deny}\n", "policy.tools.a.when: this is not valid CEL: 1:9: Syntax error"),
    "an unknown CEL variable": (BASE + "  tools:\n    a: {when: 'foo > 1', action: deny}\n", "policy.tools.a.when: there is no variable foo; a condition may use agent, args, risk, server, tool.  (line 6)"),
    "a bad schema": (BASE + "  tools:\n    a: {arguments: {type: strin}}\n", "policy.tools.a.arguments: this is not a valid JSON Schema:"),
    "a schema with an external reference": (BASE + "  tools:\n    a: {arguments: {$ref: 'http://169.254.169.254/'}}\n", "policy.tools.a.arguments: this is not a valid JSON Schema:"),
    "an unknown group": (BASE + "  tools:\n    a: {approvers: [platfrm]}\ngroups: {platform: []}\n", "policy.tools.a.approvers: there is no approver and no group 'platfrm' (did you mean platform?).  (line 6)"),
    "a wrong type": (BASE + "listen: 5\n", "listen: this must be text or a mapping.  (line 5)"),
    "a rule of the wrong type": (BASE + "  tools:\n    a: 3\n", "policy.tools.a: this must be a list or a mapping.  (line 6)"),
    "a missing key": ("servers: {iam: {command: [x]}}\n", "the key 'policy' is missing.  (line 1)"),
    "empty": ("", "The config is empty; add at least servers and policy.default.  (line 1)"),
    "only a comment": ("# nothing\n", "The config is empty; add at least servers and policy.default.  (line 1)"),
    "a list": ("- a\n", "The config must be a mapping of keys to values.  (line 1)"),
    "not YAML": ("a: [b\n", "This is not valid YAML:"),
    "a tab": ("a:\n\t- b\n", "This is not valid YAML:"),
    "no servers": ("servers: {}\npolicy: {default: deny}\n", "servers: name at least one server.  (line 1)"),
    "a command as a string": ("servers: {iam: {command: 'x; y'}}\npolicy: {default: deny}\n", "servers.iam.command: this must be a list.  (line 1)"),
    "an empty command": ("servers: {iam: {command: []}}\npolicy: {default: deny}\n", "servers.iam.command: the list must start with the program to run.  (line 1)"),
    "command and url": ("servers: {iam: {command: [x], url: 'http://x'}}\npolicy: {default: deny}\n", "servers.iam: give either a command (a list) or a url.  (line 1)"),
    "a url with another scheme": ("servers: {iam: {url: 'ftp://x'}}\npolicy: {default: deny}\n", "servers.iam.url: this must be an http:// or https:// address.  (line 1)"),
    "a malformed url": ("servers: {iam: {url: 'http://[::1'}}\npolicy: {default: deny}\n", "servers.iam.url: this must be an http:// or https:// address.  (line 1)"),
    "a url without a host": ("servers: {iam: {url: 'http:///x'}}\npolicy: {default: deny}\n", "servers.iam.url: this must be an http:// or https:// address.  (line 1)"),
    "a url with a space": ("servers: {iam: {url: 'http://x y'}}\npolicy: {default: deny}\n", "servers.iam.url: this must be an http:// or https:// address.  (line 1)"),
    "an inbox url without a scheme": (BASE + "inbox: {url: approvals.example.com}\n", "inbox.url: this must be an http:// or https:// address.  (line 5)"),
    "a webhook url without a scheme": (BASE + "webhooks: [{url: example.com/hook, secret: s}]\n", "webhooks[0].url: this must be an http:// or https:// address.  (line 5)"),
    "a checkpoint without a target": (BASE + "audit: {checkpoint: {}}\n", "audit.checkpoint: give either a file or a webhook.  (line 5)"),
    "a checkpoint with two targets": (BASE + "audit: {checkpoint: {file: x, webhook: 'https://x', secret: s}}\n", "audit.checkpoint: give either a file or a webhook.  (line 5)"),
    "a checkpoint with an invalid webhook": (BASE + "audit: {checkpoint: {webhook: x, secret: s}}\n", "audit.checkpoint.webhook: this must be an http:// or https:// address.  (line 5)"),
    "a checkpoint webhook without a secret": (BASE + "audit: {checkpoint: {webhook: 'https://x'}}\n", "audit.checkpoint.secret: a webhook needs a secret that is not empty; a file needs none.  (line 5)"),
    "a webhook without a secret": (BASE + "webhooks: [{url: 'https://x', secret: ''}]\n", "webhooks[0].secret: this must not be empty: receivers verify the signature with it.  (line 5)"),
    "a transport for a command": ("servers: {iam: {command: [x], transport: sse}}\npolicy: {default: deny}\n", "servers.iam.transport: only a server with a url has a transport; remove this key.  (line 1)"),
    "an unknown transport": ("servers: {iam: {url: 'http://x', transport: ssee}}\npolicy: {default: deny}\n", "servers.iam.transport: 'ssee' is not one of http, sse (did you mean sse?).  (line 1)"),
    "a token over plain http": (oauth("url: 'http://x'", "token_url: 'http://id.example/token', client_id: a, client_secret: b"), "servers.iam.oauth.token_url: this must be an https:// address (http:// on this machine only), because the client secret is sent there.  (line 4)"),
    "a malformed token url": (oauth("url: 'http://x'", "token_url: 'https://[', client_id: a, client_secret: b"), "servers.iam.oauth.token_url: this must be an https:// address"),
    "OAuth for a command": (oauth("command: [x]", "token_url: 'https://id.example/', client_id: a, client_secret: b"), "servers.iam.oauth: only a server with a url uses OAuth; give a command its credentials in env.  (line 4)"),
    "an empty client secret": (oauth("url: 'http://x'", "token_url: 'https://id.example/', client_id: a, client_secret: ''"), "servers.iam.oauth.client_secret: this must not be empty.  (line 4)"),
    "OAuth and an Authorization header": (oauth("url: 'http://x'\n    headers: {authorization: x}", "token_url: 'https://id.example/', client_id: a, client_secret: b"), "servers.iam.oauth: headers already sets Authorization; remove one of the two.  (line 5)"),
    "an invalid server name": ("servers: {'a/b': {command: [x]}}\npolicy: {default: deny}\n", "servers.a/b: a server name consists of at most 64 letters"),
    "two agents with one name": (BASE + f"agents: [{{name: a, token_sha256: {SHA}}}, {{name: A, token_sha256: {OTHER}}}]\n", "agents[1].name: another of the agents already has this name.  (line 5)"),
    "two agents with one token": (BASE + f"agents: [{{name: a, token_sha256: {SHA}}}, {{name: b, token_sha256: {SHA}}}]\n", "agents: two agents have the same token; give each a different one.  (line 5)"),
    "an agent's token for an approver": (BASE + f"agents: [{{name: a, token_sha256: {SHA}}}]\napprovers: [{{name: b, token_sha256: {SHA}}}]\n", "approvers[0].token_sha256: an agent has the same token, and agents may not approve; give the approver a different one.  (line 6)"),
    "a token instead of its hash": (BASE + "agents: [{name: a, token_sha256: secret}]\n", "agents[0].token_sha256: this must be the SHA-256 of a token, 64 hex digits; make one with: okayed token agent NAME  (line 5)"),
    "the hash of an empty token": (BASE + f"agents: [{{name: a, token_sha256: {EMPTY_SHA256}}}]\n", "agents[0].token_sha256: this must be the SHA-256"),
    "two approvers with one Slack ID": (BASE + "approvers: [{name: a, slack: U1}, {name: b, slack: U1}]\n", "approvers[1].slack: another of the approvers already has this slack.  (line 5)"),
    "an unknown approver in a group": (BASE + "approvers: [{name: alice}]\ngroups: {g: [alise]}\n", "groups.g: there is no approver 'alise' (did you mean alice?).  (line 6)"),
    "a group named like an approver": (BASE + "approvers: [{name: g}]\ngroups: {g: []}\n", "groups.g: an approver already has this name; rename the group.  (line 6)"),
    "an agent's unknown server": (BASE + f"agents: [{{name: a, token_sha256: {SHA}, servers: [imm]}}]\n", "agents[0].servers: there is no server 'imm' (did you mean iam?).  (line 5)"),
    "a duration": (BASE + "approvals: {expire_after: 1x}\n", "approvals.expire_after: '1x' is not a duration; write seconds, or 60s, 15m, 1h, 1d.  (line 5)"),
    "a server's duration": ("servers: {iam: {command: [x], answer_within: soon}}\npolicy: {default: deny}\n", "servers.iam.answer_within: 'soon' is not a duration; write seconds, or 60s, 15m, 1h, 1d.  (line 1)"),
    "a rule's duration": (BASE + "  tools: {a: {expire_after: soon}}\n", "policy.tools.a.expire_after: 'soon' is not a duration; write seconds, or 60s, 15m, 1h, 1d.  (line 5)"),
    "a zero duration": (BASE + "approvals: {hold_for: 0}\n", "approvals.hold_for: 0 is not a duration; write seconds, or 60s, 15m, 1h, 1d.  (line 5)"),
    "an invalid remember_denials": (BASE + "approvals: {remember_denials: never}\n", "approvals.remember_denials: 'never' is not a duration; write seconds, or 60s, 15m, 1h, 1d.  (line 5)"),
    "a client's wait": (BASE + "approvals: {clients: {mcp: {wait: soon}}}\n", "approvals.clients.mcp: 'soon' is not a duration; write seconds, or 60s, 15m, 1h, 1d.  (line 5)"),
    "a client's waiting": (BASE + "approvals: {clients: {mcp: {waiting: never}}}\n", "approvals.clients.mcp.waiting: 'never' is not one of error, result.  (line 5)"),
    "a huge duration": (BASE + "approvals: {expire_after: 100000000d}\n", "approvals.expire_after: '100000000d' is too long; write at most 3650d.  (line 5)"),
    "a rule's huge duration": (BASE + "  tools: {a: {approved_for: 315360001}}\n", "policy.tools.a.approved_for: 315360001 is too long; write at most 3650d.  (line 5)"),
    "a client's duration": (BASE + "approvals: {clients: {x: ever}}\n", "approvals.clients.x: 'ever' is not a duration; write seconds, or 60s, 15m, 1h, 1d.  (line 5)"),
    "notify_requester without an inbox url": (BASE + "approvals: {notify_requester: true}\n", "approvals.notify_requester: this needs the address of the inbox; set inbox.url.  (line 5)"),
    "a short store key": (BASE + "store_key: short\n", "store_key: a key needs at least 32 characters; make one with: openssl rand -hex 32"),
    "a short key": (BASE + "approvals: {state_keys: [short]}\n", "approvals.state_keys[0]: a key needs at least 32 characters; make one with: openssl rand -hex 32"),
    "a size of bodies": (BASE + "limits: {bodies_per_agent: x}\n", "limits.bodies_per_agent: 'x' is not a size; write bytes, or 64KB, 16MB, 1GB.  (line 5)"),
    "zero approvals": (BASE + "  tools: {a: {approvals: 0}}\n", "policy.tools.a.approvals: at least one approval is needed; to require none, use action: allow.  (line 5)"),
    "a negative limit": (BASE + "  tools: {a: {rate_limit: {max: -1, window: 60}}}\n", "policy.tools.a.rate_limit.max: this must not be negative.  (line 5)"),
    "a row without action": (BASE + "  matrix: [{category: [Read]}]\n", "policy.matrix[0].action: a row of the matrix needs an action.  (line 5)"),
    "an invalid listener": (BASE + "listen: nowhere\n", "listen: 'nowhere' is not host:port or unix:/path.  (line 5)"),
    "one listener for both": (BASE + "listen: 127.0.0.1:1\ninbox: {listen: 127.0.0.1:1}\n", "inbox.listen: the inbox needs its own listener, because agents must not reach it; use another port.  (line 6)"),
    "open to all without tokens": (BASE + "listen: 0.0.0.0:8808\n", "listen: without agents or jwt this may listen only on this machine; add agents, or use 127.0.0.1.  (line 5)"),
    "a named host without tokens": (BASE + "listen: example.com:8808\n", "listen: without agents or jwt"),
    "another database": (BASE + "store: postgresql://x\n", "store: this must be sqlite:///path (or memory: for a trial); this version supports no other database.  (line 5)"),
    "an agent without credential": (BASE + "agents: [{name: a}]\n", "agents[0]: give either token_sha256 (of an agent token) or subject (of a JWT).  (line 5)"),
    "an agent with two credentials": (JWT + f"agents: [{{name: a, token_sha256: {SHA}, subject: s}}, {{name: b, subject: b}}]\n", "agents[0]: give either token_sha256 (of an agent token) or subject (of a JWT).  (line 7)"),
    "an empty subject": (JWT + "agents: [{name: a, subject: ''}, {name: b, subject: b}]\n", "agents[0]: give either token_sha256 (of an agent token) or subject (of a JWT).  (line 7)"),
    "an issuer without subject": (JWT + f"agents: [{{name: a, token_sha256: {SHA}, issuer: 'https://id'}}, {{name: b, subject: b}}]\n", "agents[0]: only an agent with a subject has an issuer; remove issuer.  (line 7)"),
    "a subject without issuers": (BASE + "agents: [{name: a, subject: s}]\n", "agents[0]: a subject needs an issuer; add jwt, or use token_sha256 instead.  (line 5)"),
    "a subject without issuer among several": (JWT.replace("}]", "}, {issuer: 'https://b', jwks: 'https://b', any_subject: true}]") + "agents: [{name: a, subject: s}, {name: b, subject: b, issuer: 'https://id'}]\n", "agents[0]: there are several issuers; add the issuer: https://... of this subject.  (line 7)"),
    "a subject of an unknown issuer": (JWT + "agents: [{name: a, subject: s, issuer: 'https://x'}, {name: b, subject: b}]\n", "agents[0]: there is no issuer 'https://x' in jwt.  (line 7)"),
    "a subject twice": (JWT + "agents: [{name: a, subject: s}, {name: b, subject: s, issuer: 'https://id'}]\n", "agents[1]: another of the agents already has this subject.  (line 7)"),
    "an issuer without agents": (JWT, "jwt[0]: no agent has a subject of this issuer; add one, or set any_subject: true.  (line 6)"),
    "two issuers with any_subject": (JWT.replace("}]", ", any_subject: true}, {issuer: 'https://b', jwks: 'https://b', any_subject: true}]"), "jwt: only one issuer may have any_subject, because agents of two issuers could share a name.  (line 6)"),
    "an issuer twice": (JWT.replace("}]", ", any_subject: true}, {issuer: 'https://id', jwks: 'https://b'}]") + "agents: [{name: a, subject: s, issuer: 'https://id'}]\n", "jwt[1].issuer: this issuer appears twice; remove one of them.  (line 6)"),
    "an issuer over plain http": (ANY.replace("https://id,", "http://id.example.com,"), "jwt[0].issuer: this must be an https:// address (http:// only on this machine), without a user or a fragment.  (line 6)"),
    "keys over plain http": (ANY.replace("https://id/keys", "http://10.0.0.1/keys"), "jwt[0].jwks: this must be an https:// address"),
    "keys in a file": (ANY.replace("https://id/keys", "file:///etc/passwd"), "jwt[0].jwks: this must be an https:// address"),
    "keys with a password": (ANY.replace("https://id/keys", "https://u:p@id/keys"), "jwt[0].jwks: this must be an https:// address"),
    "keys without a host": (ANY.replace("https://id/keys", "https:///keys"), "jwt[0].jwks: this must be an https:// address"),
    "keys at an invalid port": (ANY.replace("https://id/keys", "https://id:x/keys"), "jwt[0].jwks: this must be an https:// address"),
    "a shared secret": (ANY.replace("}]", ", algorithms: [HS256]}]"), "jwt[0].algorithms[0]: 'HS256' is not one of ES256, ES384, ES512, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512 (did you mean RS256?).  (line 6)"),
    "no signature": (ANY.replace("}]", ", algorithms: [none]}]"), "jwt[0].algorithms[0]: 'none' is not one of ES256"),
    "no algorithms": (ANY.replace("}]", ", algorithms: []}]"), "jwt[0].algorithms: name at least one, or remove the key.  (line 6)"),
    "no audience": (ANY.replace("}]", ", audience: []}]"), "jwt[0].audience: name at least one, or remove the key.  (line 6)"),
    "a scope with a space": (ANY.replace("}]", ", scopes: ['a b']}]"), "jwt[0].scopes: 'a b' is not a scope; a scope has no spaces, quotes or backslashes.  (line 6)"),
    "JWTs without a url": (ANY.replace("url: https://mcp\n", ""), "jwt: this needs the address that agents use; add url: https://... at the top level.  (line 5)"),
    "a url over plain http": (ANY.replace("https://mcp", "http://mcp"), "url: this must be https:// and a host, without a path or a query, such as https://mcp.example.com (http:// only on this machine).  (line 5)"),
    "a url with a path": (ANY.replace("https://mcp", "https://mcp/x"), "url: this must be https:// and a host"),
    "a url with a query": (ANY.replace("https://mcp", "https://mcp?x=y"), "url: this must be https:// and a host"),
    "keys with a fragment": (ANY.replace("https://id/keys", "https://id/keys#x"), "jwt[0].jwks: this must be an https:// address"),
    "a malformed public url": (ANY.replace("https://mcp", "'https://[x'"), "url: this must be https:// and a host"),
    "a socket's mode as a number": (BASE + "listen: {unix: /run/a.sock, mode: 0660, group: agents}\n", 'listen.mode: 660 is not a mode; write three octal digits in quotes, such as "0660".  (line 5)'),
    "a socket's invalid mode": (BASE + "inbox: {listen: {unix: /run/a.sock, mode: rw}}\n", "inbox.listen.mode: 'rw' is not a mode; write three octal digits in quotes, such as \"0660\".  (line 5)"),
    "one socket for both": (BASE + "listen: {unix: /run/a.sock}\ninbox: {listen: 'unix:/run/a.sock'}\n", "inbox.listen: the inbox needs its own listener, because agents must not reach it; use another port.  (line 6)"),
    "a trusted proxy by name": (BASE + "trusted_proxies: [10.0.0.0/8, 'unix:', nginx]\n", "trusted_proxies[2]: 'nginx' is not an IP address or network; write 10.0.0.5, 10.0.0.0/8 or unix:.  (line 5)"),
    "every client as a trusted proxy": (BASE + "trusted_proxies: [0.0.0.0/0]\n", "trusted_proxies[0]: 0.0.0.0/0 is every address, so any client could forge its own; list only your proxies.  (line 5)"),
    "a login proxy by name": (BASE + "inbox:\n  login:\n    proxy_header: {name: X, from: [10.0.0.0/8, '::1', nginx]}\n", "inbox.login.proxy_header.from[2]: 'nginx' is not an IP address or network; write 10.0.0.5 or 10.0.0.0/8.  (line 7)"),
    "more approvals than approvers": (BASE + "  tools: {a: {approvals: 3}}\napprovers: [{name: a}, {name: b}]\n", "policy.tools.a.approvals: 3 must approve but only 2 may, so its calls could only expire; add approvers or require fewer approvals.  (line 5)"),
    "more approvals than a group has": (BASE + "  matrix: [{action: require_approval, approvals: 2, approvers: [g]}]\napprovers: [{name: a}, {name: b}]\ngroups: {g: [b]}\n", "policy.matrix[0].approvals: 2 must approve but only 1 may, so its calls could only expire; add approvers or require fewer approvals.  (line 5)"),
    "an empty group": (BASE + "  tools: {a: {approvers: [g]}}\ngroups: {g: []}\n", "policy.tools.a.approvers: this names no approver, so its calls could only expire.  (line 5)"),
    "an owner as the only approver": (BASE + f"approvers: [{{name: a, email: a@b.c}}]\nagents: [{{name: x, owner: A@b.c, token_sha256: {SHA}}}]\n", "agents[0].owner: the owner is the only approver and may not approve the calls of their own agent; add another approver, or set approvals.requester_may_approve: true.  (line 6)"),
    "Slack with both transports": (BASE + "approvers: [{name: a, slack: U1}]\nslack: {bot_token: x, channel: C, app_token: a, signing_secret: s}\n", "slack: give either app_token (Socket Mode) or signing_secret (the HTTP endpoint).  (line 6)"),
    "Slack with an invalid api_url": (BASE + "approvers: [{name: a, slack: U1}]\nslack: {bot_token: x, channel: C, app_token: a, api_url: slack.com}\n", "slack.api_url: this must be an http:// or https:// address.  (line 6)"),
    "Slack without approvers": (BASE + "slack: {bot_token: x, channel: C, app_token: a}\n", "slack: no approver has a Slack ID; add slack: U... to each approver who uses Slack.  (line 5)"),
    "an empty Slack token": (BASE + "approvers: [{name: a, slack: U1}]\nslack: {bot_token: '', channel: C, app_token: a}\n", "slack.bot_token: this must not be empty.  (line 6)"),
}  # fmt: skip


@each_row(("text", "told"), BROKEN.values())
def test_a_broken_config_is_reported_in_one_sentence_with_its_line(text, told):
    found = problems(text)
    assert found[0].startswith(told)
    assert len(found) == 1
    assert "(line " in found[0]


def test_all_problems_are_reported_together():
    found = problems(BASE + "polcy: {}\nlisten: 5\n  ")
    assert len(found) == 2
    assert len(problems(BASE + "store: '${X}'\nurl: '${Y} ${Z}'\n")) == 3


def test_an_unset_variable_does_not_hide_a_wrong_type_elsewhere():
    assert problems(BASE.replace("require_approval", "'${X}'") + "listen: 5\n") == [
        "policy.default: the environment variable X is not set.  (line 4)",
        "listen: this must be text or a mapping.  (line 5)",
    ]


def test_an_invalid_rule_does_not_hide_problems_elsewhere():
    found = problems(
        BASE + "  tools:\n    u: {approvals: 0}\n    x: [{action: maybe}]\n    y: 5\n"
        "  matrix: [{category: [Reed]}, {risk: [Low]}]\nlisten: nowhere\n"
    )
    assert sorted(problem.split(":")[0] for problem in found) == [
        "listen",
        "policy.matrix[0].category[0]",
        "policy.matrix[1].action",
        "policy.tools.u.approvals",
        "policy.tools.x[0].action",
        "policy.tools.y",
    ]


def test_a_huge_config_is_refused_before_it_is_read():
    assert "longer than" in problems("a: " + "x" * (1 << 20))[0]


def test_nesting_too_deeply_is_refused():
    assert "nested too deeply" in problems("a: " + "[" * 60 + "]" * 60)[0]


@pytest.mark.parametrize(
    "text",
    [
        "  tools: &t {a: *t}\n",
        "listen: !!python/name:os.system x\n",
        "listen: !!python/object/apply:os.system [x]\n",
    ],
)
def test_a_config_that_refers_to_itself_or_to_code_is_refused(text):
    assert problems(BASE + text)


def test_in_yaml_1_2_no_and_a_time_are_strings():
    good = parse_config(BASE + "  tools: {a: {reason: no}, b: {reason: 12:30}}\n", {}, str)
    assert (good.policy.tools["a"].reason, good.policy.tools["b"].reason) == ("no", "12:30")


def test_references_are_resolved_and_never_printed():
    text = (
        BASE
        + "agents: [{name: a, token_sha256: '${HASH}'}]\nwebhooks: [{url: 'https://x', secret: '${file:/run/s}'}]\n"
    )
    good = parse_config(text, {"HASH": SHA}, {"/run/s": "whsec\n"}.__getitem__)
    assert good.agents[0].token_sha256 == SHA
    assert good.webhooks[0].secret == "whsec"
    assert "whsec" not in repr(good) + repr(good.webhooks[0])


def test_a_listener_on_a_unix_socket_or_loopback_needs_no_tokens():
    assert parse_config(BASE + "listen: unix:/run/okayed.sock\n", {}, str).listen.startswith("unix:")
    assert parse_config(BASE + "listen: '[::1]:8808'\n", {}, str)
    assert parse_config(BASE + "listen: localhost:8808\n", {}, str)


def test_a_listener_with_issuers_needs_no_other_tokens():
    good = parse_config(ANY + "listen: 0.0.0.0:8808\n", {}, str)
    assert good.jwt[0].algorithms == ["RS256", "ES256", "EdDSA"]
    for here in ("http://localhost:1", "http://127.0.0.1:1/", "'http://[::1]:1'", "https://MCP.example.com/"):
        assert parse_config(ANY.replace("https://mcp", here), {}, str)


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "okayed.yaml"
    path.write_text(BASE)
    path.chmod(0o600)
    return path


def test_a_file_is_loaded(file):
    assert load_config(file, os.environ).policy.default == "require_approval"


@pytest.mark.parametrize(
    ("store", "placed"),
    [
        ("sqlite:///okayed.db", "sqlite:///{folder}/okayed.db"),
        ("sqlite:///data/h.db", "sqlite:///{folder}/data/h.db"),
        ("sqlite:////var/lib/h.db", "sqlite:////var/lib/h.db"),
        ("memory:", "memory:"),
    ],
)
def test_a_relative_store_path_starts_from_the_folder_of_the_config(file, monkeypatch, store, placed):
    file.write_text(BASE + f"store: '{store}'\n")
    monkeypatch.chdir(file.parent)
    assert load_config(file, {}).store == placed.format(folder=file.parent)
    assert load_config(Path(file.name), {}).store == placed.format(folder=file.parent)


@pytest.mark.parametrize(("mode", "scope"), [(0o602, "world"), (0o620, "group"), (0o666, "world")])
def test_a_file_that_others_can_write_is_refused(file, mode, scope):
    file.chmod(mode)
    with pytest.raises(
        ConfigProblems,
        match=f"is {scope}-writable, so an agent could change its own rules; run: chmod go-w",
    ):
        load_config(file, {})


def test_a_missing_or_unreadable_file_is_one_sentence(tmp_path, file):
    with pytest.raises(ConfigProblems, match="does not exist; name the config with -c"):
        load_config(tmp_path / "none.yaml", {})
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigProblems, match="is not UTF-8 text"):
        load_config(file, {})


def test_a_truncated_config_is_valid_or_refused_but_never_an_error(file):
    text = (BASE + "  tools: {a: {action: deny}}\n").encode()
    for end in range(len(text)):
        file.write_bytes(text[:end])
        try:
            load_config(file, {})
        except ConfigProblems:
            continue


def test_a_referred_file_is_read_from_disk(file, tmp_path):
    secret = tmp_path / "s"
    secret.write_text("hush\n")
    file.write_text(BASE + f"webhooks: [{{url: 'https://x', secret: '${{file:{secret}}}'}}]\n")
    assert load_config(file, {}).webhooks[0].secret == "hush"


def test_a_referred_file_that_is_not_text_is_one_sentence(file, tmp_path):
    (tmp_path / "s").write_bytes(b"\xff\xfe\x00")
    file.write_text(BASE + f"store_key: '${{file:{tmp_path / 's'}}}'\n")
    with pytest.raises(ConfigProblems) as found:
        load_config(file, {})
    assert str(found.value) == f"store_key: the file {tmp_path / 's'} is not UTF-8 text.  (line 5)"


def test_a_variable_that_is_not_text_is_one_sentence():
    told = "store_key: this is not valid Unicode text.  (line 5)"
    assert problems(BASE + "store_key: '${KEY}'\n", {"KEY": b"\xff".decode(errors="surrogateescape")}) == [
        told
    ]


def test_a_surrogate_pair_is_one_character():
    good = parse_config(BASE + '  tools: {a: {reason: "\\ud83d\\ude00"}}\n', {}, str)
    assert good.policy.tools["a"].reason == "\N{GRINNING FACE}"


def test_an_owner_may_be_the_only_approver_if_the_config_allows_it_or_there_are_others():
    text = BASE + f"agents: [{{name: x, owner: a, token_sha256: {SHA}}}]\napprovers: [{{name: a}}%s]\n%s"
    assert parse_config(text % ("", "approvals: {requester_may_approve: true}\n"), {}, str)
    assert parse_config(text % (", {name: b}", ""), {}, str)


def test_the_schema_is_json_and_names_every_section():
    schema = json.loads(json.dumps(build_schema()))
    assert set(schema["$defs"]["Config"]["properties"]) >= {
        "servers",
        "policy",
        "approvals",
        "inbox",
        "slack",
        "webhooks",
        "audit",
    }
