"""An identity provider of the tests: it gives signed tokens for a client's secret, and the key that tells them.

(RFC 6749, section 4.4, client credentials; RFC 7517, the set of keys)
"""

from __future__ import annotations

import base64
import json
import time
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256

from tests.support.local_server import LocalServer, answer_json

CLIENT = "engage-relay"
SECRET = "client-secret-that-must-never-be-logged"
AUDIENCE = "kafka"


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class IdentityProvider(LocalServer):
    """`lives_s`: how long its tokens live; `is_down`: it answers 503; `tokens`: those that it gave."""

    def __init__(self, lives_s: float = 60.0) -> None:
        self.lives_s = lives_s
        self.is_down = False
        self.tokens: list[str] = []
        self._key = generate_private_key(public_exponent=65537, key_size=2048)
        super().__init__(self._handler())

    def token(self) -> tuple[str, float]:
        """Return a new token and when it expires, in seconds since 1970."""
        now = time.time()
        claims = {"sub": CLIENT, "aud": AUDIENCE, "iat": int(now), "exp": int(now + self.lives_s), "iss": self.url}
        head = {"alg": "RS256", "typ": "JWT", "kid": "1"}
        signed = ".".join(_encoded(json.dumps(each).encode()) for each in (head, claims))
        token = f"{signed}.{_encoded(self._key.sign(signed.encode(), PKCS1v15(), SHA256()))}"
        self.tokens.append(token)
        return token, now + self.lives_s

    def _keys(self) -> object:
        numbers = self._key.public_key().public_numbers()
        exponent, modulus = (each.to_bytes((each.bit_length() + 7) // 8, "big") for each in (numbers.e, numbers.n))
        key = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1", "e": _encoded(exponent), "n": _encoded(modulus)}
        return {"keys": [key]}

    def _handler(provider) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                answer_json(self, 200, provider._keys())

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                scheme, _, shown = (self.headers.get("Authorization") or "").partition(" ")
                user, _, password = base64.b64decode(shown).decode().partition(":")
                if provider.is_down:
                    answer_json(self, 503, {"error": "temporarily_unavailable"})
                elif (scheme, unquote(user), unquote(password)) != ("Basic", CLIENT, SECRET):
                    answer_json(self, 401, {"error": "invalid_client"})
                else:
                    token, _ = provider.token()
                    lives = int(provider.lives_s)
                    answer_json(self, 200, {"access_token": token, "token_type": "Bearer", "expires_in": lives})

            def log_message(self, *_: object) -> None: ...

        return Handler
