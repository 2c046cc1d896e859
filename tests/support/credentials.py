"""Credentials of every kind, with letters and digits of no account, and where they are found."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, quote_plus

import pyarrow.parquet as pq


class Planted(NamedTuple):
    """A credential.

    Attributes:
        kind: What it is.
        secret: What nobody may read.
        text: It, in what is known by its shape; empty where its variable alone tells.
        variable: Name of the variable of the environment that may hold it.
    """

    kind: str
    secret: str
    text: str
    variable: str


def _shaped(kind: str, secret: str, variable: str = "", text: str = "{}") -> Planted:
    return Planted(kind, secret, text.format(secret), variable or f"{kind.upper()}_TOKEN")


_PEM = (
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAA\n{}\n"
    "-----END OPENSSH PRIVATE KEY-----"
)
KINDS = (
    _shaped("hub", "hf_" + "QwErTyUiOpAsDfGhJkLzXcVbNm12345678", "HF_TOKEN"),
    _shaped("openai", "sk-" + "a1B2c3D4e5F6" * 4, "OPENAI_API_KEY"),
    _shaped("openai_project", "sk-proj-" + "Ab3_dE-gH1jKlMn0-QrStUvWx_z" * 4),
    _shaped("anthropic", "sk-ant-api03-" + "Zy9-wVu8TsRq7_oNm6LkJi5-gFe4DcBa" * 2),
    _shaped("github", "ghp_" + "a1B2c3D4e5" * 4, "GITHUB_TOKEN"),
    _shaped("github_app", "ghs_" + "Z9y8X7w6V5" * 4),
    _shaped("github_fine", "github_pat_" + "11ABCDEFG0aBcDeFgHiJkL" + "_" + "m1N2o3P4q5" * 5),
    _shaped("gitlab", "glpat-" + "x-Ab3_Yz9QwErTy1UiOp"),
    _shaped("aws_id", "AKIA" + "Q3EGRXB7Z5K2M4NP", "AWS_ACCESS_KEY"),
    Planted("aws", "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYzzzzzzzKEY", "", "AWS_SECRET_ACCESS_KEY"),
    _shaped("google", "AIza" + "SyB-1a2B3c4D5e6F7g8H9i0J_kLmNoPqRsT"),
    _shaped("slack", "xoxb-" + "123456789012-AbCdEfGhIjKl"),
    _shaped("jwt", "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0In0" + ".dBjftJeZ4CVP-mB92K27"),
    _shaped("pem", "b2rQl1Zk9xTfPq0aYs7" + "UwVn3Ee5HgJ6KdMi", "SSH_PRIVATE_KEY", _PEM),
    _shaped("address", "pQ7@ss-W0rd", "DB_PASSWORD", "https://me:{}@host.example/models/x"),
    _shaped("address_token", "4f0aB7c9D1e2", "CI_JOB_TOKEN", "https://{}@host.example/models/x"),
    _shaped("header", "b64.Abc1+/Def2Ghi3Jkl4Mno5==", "", "Authorization: Bearer {}"),
    _shaped("nvidia", "nvapi-" + "Ab1-Cd2_Ef3Gh4Ij5Kl6" * 3, "NGC_CLI_API_KEY"),
    Planted("weights_and_biases", "0f1e2d3c4b5a69788796a5b4c3d2e1f001122334", "", "WANDB_API_KEY"),
    Planted("words", "correct horse battery", "", "MODEL_STORE_SECRET"),
    Planted("signs", 'p"a\\s/s w&o\u00f6r+d%1', "", "PROXY_PASSWORD"),
)
"""More kinds than are asked for; those of no shape are known by the variable that holds them."""

SHAPED = tuple(one for one in KINDS if one.text)


def forms(secret: str) -> set[str]:
    """Spell a secret as it may be found in a file or on a screen, in small letters."""
    spelt = {secret, quote(secret, safe=""), quote(secret), quote_plus(secret)}
    spelt |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    return {form.lower() for form in spelt | {repr(secret)[1:-1]}}


def found_in(text: str) -> list[str]:
    """Name the kinds whose secret stands in a text, in any spelling."""
    folded = text.lower()
    return [one.kind for one in KINDS if any(form in folded for form in forms(one.secret))]


def texts_below(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield every path below a folder, and of every file what it holds, Parquet decoded."""
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        yield f"name {name}", name
        if not path.is_file():
            continue
        content = path.read_bytes()
        yield name, content.decode(errors="replace")
        if path.suffix == ".parquet":
            table = pq.read_table(io.BytesIO(content))
            about = {str(key): str(value) for key, value in (table.schema.metadata or {}).items()}
            yield f"decoded {name}", "\n".join(map(str, [about, *table.to_pylist()]))
