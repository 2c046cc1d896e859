"""Input that nobody meant, made from a seed, and what holds for every bit of it.

A test gives a maker, which turns a ``random.Random`` into a :class:`Case`, and seeds to
:func:`hold`; what breaks a promise is reported with its seed, so that it can be made again.
"""

from __future__ import annotations

import re
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel

from llenergymeasure.config.models import ExperimentConfig, StudyConfig
from llenergymeasure.exceptions import LLEMError
from tests.support.cli import Done, Llem

LONGEST_S = 10.0
"""Of work; a machine that is busy otherwise may take longer."""
PATIENCE_S = 60.0
LONGEST_MESSAGE = 4_000
LONGEST_WORD = 256
"""Characters without a space or a slash; a path may be longer, a name is shortened before."""
MOST_BYTES = 8 << 30
EXIT_CODES = (0, 1, 2)


class Case(NamedTuple):
    """A command and what it finds.

    Attributes:
        arguments: The command line.
        files: Contents by name, relative to the folder that it runs in.
        prepare: Makes in that folder what is no plain file.
    """

    arguments: tuple[str, ...]
    files: Mapping[str, bytes] = {}
    prepare: Callable[[Path], object] = lambda folder: None


Maker = Callable[[Random], Case]


def hold(make: Maker, seeds: Iterable[int], folder: Path) -> None:
    """Check the case of every seed, each in an empty folder."""
    for seed in seeds:
        case, place = make(Random(seed)), folder / "case"
        place.mkdir()
        try:
            check(case, place)
        except Exception as error:
            files = {name: content[:2_000] for name, content in case.files.items()}
            raise AssertionError(f"seed {seed}: {case.arguments} with {files}: {error}") from error
        finally:
            shutil.rmtree(place)


def check(case: Case, folder: Path) -> Done:
    """Run the command of a case in this process and hold it to what is promised of any input.

    No traceback, no defect, no wait without end, an exit code that is documented, and a message
    that fits on a screen.
    """
    for name, content in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    case.prepare(folder)
    with _bounded():
        done = Llem(folder).inline(*case.arguments)
    assert done.code in EXIT_CODES, done
    if done.code:
        assert "llem: " in done.err, done
        _is_message(done.err)
    return done


def check_call(call: Callable[[], Any]) -> Any:
    """Call the library and hold it to the same; gives what it returns, or the error it raised."""
    with _bounded():
        try:
            return call()
        except LLEMError as refusal:
            found = refusal
    assert len(found.message) <= LONGEST_MESSAGE, found.message
    return found


def _is_message(said: str) -> None:
    for phrase in ("defect of llem", "Traceback", "MemoryError"):
        assert phrase not in said, said
    assert len(said) <= LONGEST_MESSAGE, f"{len(said)} characters: {said[:500]}"
    assert not re.search(rf"[^\s/]{{{LONGEST_WORD}}}", said), said


@contextmanager
def _bounded() -> Iterator[None]:
    """End what takes too long or too much memory, as a defect."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    handler = signal.signal(signal.SIGALRM, _too_long)
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, before[1]))
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    begun_s = time.process_time()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_DATA, before)
    assert time.process_time() - begun_s < LONGEST_S, "it took too long"


def _too_long(number: int, frame: object) -> None:
    raise RuntimeError("it took too long")


# Makers -------------------------------------------------------------------------------------------


def _each(block: str, mark: str = "|") -> list[str]:
    return block.replace("\n", mark).split(mark)


NUMBERS = (
    *_each("""010|-010|08|0o17|0x10|0b11|1_000|1:30|-1:30:00|1:30.5|1e3|1.5e3|1e-3|1e400|-1e400|1e
.inf|-.inf|.nan|-0.0|5e-324|1e308|1.7976931348623157e+308|1e3e3|4294967296|-1|0|1000000000
2147483648|1000000000000|18446744073709551616|1e999999999"""),
    *("9" * 30, "9" * 400, "9" * 5_000, "0x" + "f" * 9_000, "-" + "9" * 400, "1." + "0" * 400),
    *("59" + ":59" * 400, "1" + "0" * 308 + ".0"),
)
TAGGED = _each(r"""!!int ''|!!int x|!!int [1]|!!int {a: 1}|!!bool x|!!bool ''|!!bool [a]|!!
!!timestamp y|!!timestamp 2024-13-45|!!timestamp ''|!!float ''|!!float x|!!float +|!!int -
!!int 0x|!!int 0b|!x y
!!int _|!!int 1:|!!float 1:x|!!binary 'é'|!!binary aGk=|!!binary '='|!!set {a, b}|!!set [a]|! x|=
!!omap [a: 1]|!!omap {a: 1}|!!pairs [a: 1, a: 2]|!!python/object:os.system {}|!!python/name:os x
!!python/object/apply:os.system ['true']|!!null x|!!null [a]|!!str [a]|!!map [a]|!!seq {a: 1}|<<
!!merge x|!!value x|!<tag:x> y|!!int &a 5|!!str|2024-02-30|2024-01-01|0000-01-01|0001-01-01
2001-12-14t21:59:43.10-99:99""")
TEXTS = (
    *_each(r"""''|~|~nosuchuser|~nosuchuser/x.jsonl|random:~nosuchuser/m|~/x|random:|/|"\0"|"a\0b.jsonl"
"/tmp/\0/x"|"random:\0"|"\e[31mred\a"|"\uD800"|.|"\U0010FFFF"|"\r\n"|random:/|yes|no|on|off|null
true|@x|`x`|%x|%s|{0}|'{0}'|'%(x)s'|'{c.model}'|&a|*a|*b|&a [*a]|&a {x: *a}|? x|loop.yaml|loop
case.yaml|..|/dev/null|/proc/self/mem|'C:\x'|scripted|pytorch|vllm|>"""),
    *("é" * 3_000, "x" * 5_000, "/" * 5_000, "../" * 2_000, "'" + "a b " * 2_000 + "'", "|"),
    *("hf_" + "AbCdEfGhIjKlMnOpQrStUvWx", "\u202ex", "\ufeffx", "a\u2028b"),
)
NESTED = (
    *_each(
        r"""[];{};[[]];[1, 2];{a: 1};{synthetic: {}};{synthetic: {n: 1e9}};[~];[a, [b]]
{? {a: 1}: b};{synthetic: {input_len: 1000000000000}};{synthetic: {output_len: 1e15}}
{? [a, b]: c};{a: 1, a: 2}
{1: 2, 1.5: 3, ~: 4, on: 5};{<<: {a: 1}};{<<: [1]};{<<: x}""",
        ";",
    ),
    *("[" * 40 + "]" * 40, "{a: " * 40 + "}" * 40, "[" * 6_000, "{a: " * 6_000),
    *("[" * 9_000 + "]" * 9_000, "[" + "1, " * 5_000 + "1]"),
    "{" + ", ".join(f"k{number}: 1" for number in range(3_000)) + "}",
)
VALUES = (*NUMBERS, *TAGGED, *TEXTS, *NESTED)
KEYS = (
    *_each(r"""n|model|dataset|sweep|experiments|execution|base|backend|decoder|lora|scripted|pytorch|on
passthrough_kwargs|token|~|1.5|''|<<|=|? [a]|"\0"|"\e[2J"|n.n|decoder.|.n|name|warmup|random_seed
decoder.top_k|scripted.batch_size|vllm.block_size|window.phases|é|{c.n}|%s|2024-01-01|!!int ''
!!python/name:os x|&a n|cold_start|010|1:30"""),
    *("x" * 3_000, "'" + "a b " * 900 + "'", "? " + ".".join("a" * 5_000) + "\n  "),
)
EXPERIMENT = """\
model: m
backend: scripted
energy_backend: none
n: 2
max_new_tokens: 2
max_input_tokens: 64
random_seed: 1
precision: bf16
dataset: mixed-1k
decoder:
  decoding_strategy: sampling
  temperature: 0.5
  top_k: 5
warmup: {n_warmup: 1, thermal_floor_seconds: 0}
baseline: {enabled: true, duration_seconds: 1}
window:
  min_duration_seconds: 1
  phases: amortised
scripted:
  ttft_ms: 1
  itl_ms: 1
  batch_size: 1
  load_log: load.txt
"""
STUDY = """\
name: study
model: m
backend: scripted
energy_backend: none
n: 2
max_new_tokens: 2
sweep:
  scripted.batch_size: [1, 2]
  decoder.top_k: [1, 2]
  dataset: [mixed-1k, x.jsonl]
experiments:
  - {n: 3}
  - model: o
    scripted:
      ttft_ms: 2
execution:
  n_cycles: 2
  cycle_order: balanced
  config_gap_seconds: 0
  cycle_gap_seconds: 0
  timeout_s: 60
  seed: 1
"""
SYNTHETIC = """\
base: lower.yaml
model: random:tiny-llama
backend: scripted
dataset:
  synthetic:
    n: 4
    input_len: 8
    output_len: 4
    seed: 1
n: 2
"""
USER = """\
output:
  results_dir: results
  model_cache_dir: cache
runners:
  scripted: local
measurement:
  energy_backend: none
  carbon_intensity_gco2_kwh: 100
  datacenter_pue: 1.2
  calibrate: false
execution:
  config_gap_seconds: 1
  cycle_gap_seconds: 1
  start_method: auto
ui: {verbosity: standard, prompt: false}
advanced:
  counter_poll_ms: 5
  power_poll_ms: 20
"""
LOWER = b"energy_backend: none\nmax_new_tokens: 4\n"


def configuration(random: Random) -> Case:
    """Make the file of an experiment or a study."""
    text = _mutated(random.choice((EXPERIMENT, STUDY, SYNTHETIC)), random)
    return _dry_run("case.yaml", files={"case.yaml": text, "lower.yaml": LOWER})


def fields(random: Random) -> Case:
    """Make a good experiment or study, and give fields of it other values."""
    names = random.sample(_FIELDS, random.randint(1, 3))
    pool = random.choice((NUMBERS, NUMBERS, TAGGED, TEXTS, NESTED))
    given = {"model": "m", "backend": "scripted", "energy_backend": "none", "n": "2"}
    given |= {name: random.choice(pool) for name in names}
    if random.random() < 0.3:
        swept = f"[{random.choice(pool)}, {random.choice(pool)}]"
        given[random.choice(("sweep.", "sweep.", "experiments")) + random.choice(names)] = swept
    sections: dict[str, list[str]] = {}
    for name, value in given.items():
        section, dot, rest = name.partition(".")
        sections.setdefault(section, []).append(f"\n  {rest}: {value}" if dot else f" {value}")
    text = "".join(f"{section}:{''.join(lines)}\n" for section, lines in sections.items())
    return _dry_run("case.yaml", files={"case.yaml": text.encode()})


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = [one for one in (field.annotation, *get_args(field.annotation)) if _is_model(one)]
        for section in inner:
            yield from _leaves(section, f"{prefix}{name}.")
        if not inner and name not in ("sweep", "experiments"):
            yield f"{prefix}{name}"


def _is_model(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


_FIELDS = (*_leaves(ExperimentConfig), *_leaves(StudyConfig))


def inherited(random: Random) -> Case:
    """Make a file that a good one builds on."""
    good = b"base: lower.yaml\nmodel: m\nbackend: scripted\nenergy_backend: none\nn: 2\n"
    text = _mutated(random.choice((EXPERIMENT, STUDY, SYNTHETIC)), random)
    return _dry_run("case.yaml", files={"case.yaml": good, "lower.yaml": text})


def user_configuration(random: Random) -> Case:
    """Make the file with a user's settings."""
    place = "home/config/llenergymeasure/config.yaml"
    return _dry_run("case.yaml", files={place: _mutated(USER, random), "case.yaml": STUDY.encode()})


def flags(random: Random) -> Case:
    """Make a command line."""
    names = ("-m", "-b", "-d", "-n", "--batch-size", "--precision", "--max-new-tokens", "--cycles")
    names += ("--energy-backend", "--order", "--runner", "--output", "--again", "--nope", "-", "--")
    names += ("--set", "--set", "--sweep", "--sweep", "--wait")
    good = {"-m": "m", "-b": "scripted", "-n": "2", "--energy-backend": "none"}
    for _ in range(random.randint(1, 3)):
        value = random.choice(VALUES)
        kept = value.encode(errors="surrogateescape").replace(b"\0", b"").decode(errors="ignore")
        name = random.choice(names)
        if name in ("--set", "--sweep") and random.random() < 0.9:
            kept = f"{random.choice(_FIELDS)}={kept}"
        good[name] = kept
    arguments = [part for name, value in good.items() for part in (name, value)]
    if random.random() < 0.1:  # a plan is shown of a new study only
        return Case(("run", "--resume", random.choice(VALUES), *arguments))
    return _dry_run(*arguments)


PROMPTS = (
    '{"prompt": "one two three"}',
    '{"prompt": "four", "max_new_tokens": 3}',
    '{"_provenance": {"name": "x"}}',
    '{"messages": [{"role": "user", "content": "five"}]}',
    '{"prompt": "six"}',
    '{"prompt": "seven", "other": [1, 2]}',
)
JSON_VALUES = (
    *("null", "true", "-1", "0", "1e400", "9" * 5_000, "1.5", "NaN", "Infinity", '""', '" "', "[]"),
    *('"\\ud800"', '"\\u0000"', '"\\u001b[31m"', "{}", '{"a": 1}', "[" * 50_000, '{"a":' * 50_000),
    *(
        '"' + "x" * 50_000 + '"',
        '[{"role": "user"}]',
        '[{"role": 5, "content": []}]',
        "'x'",
        "",
        "é",
    ),
)


def dataset(random: Random) -> Case:
    """Make a file of prompts."""
    endings = (".jsonl", ".jsonl", ".JSONL", ".csv", ".parquet", ".jsonl.gz")
    name = "prompts" + random.choice(endings)
    lines = [random.choice(PROMPTS) for _ in range(random.randint(2, 8))]
    if name.endswith(".csv"):
        lines = ["prompt,max_new_tokens", *(f'"number {place}",{place}' for place in range(1, 6))]
    for _ in range(random.randint(1, 3)):
        place = random.randrange(len(lines))
        key = random.choice(("prompt", "max_new_tokens", "messages", "text", "system_prompt", "x"))
        line = f'{{"prompt": "one", "{key}": {random.choice(JSON_VALUES)}}}'
        lines[place] = random.choice((line, lines[place] * 2, lines[place][:-1], line[:9], ""))
    content = "\n".join(lines).encode()
    if random.random() < 0.3:
        content = _with_odd_bytes(content, random)
    good = ("-m", "m", "-b", "scripted", "-n", "2", "--energy-backend", "none", "-d", name)
    return _dry_run(*good, files={name: content})


def _dry_run(*arguments: str, files: Mapping[str, bytes] = {}) -> Case:
    return Case(("run", *arguments, "--dry-run"), files, _with_loops)


def _with_loops(folder: Path) -> None:
    for name in ("loop", "loop.yaml", "loop.jsonl"):
        (folder / name).symlink_to(name)


def _mutated(text: str, random: Random) -> bytes:
    lines = text.splitlines()
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        random.choice(_CHANGES)(lines, random)
    content = "\n".join(lines).encode()
    return _with_odd_bytes(content, random) if random.random() < 0.1 else content


def _other_value(lines: list[str], random: Random) -> None:
    place = random.randrange(len(lines))
    name, colon, _ = lines[place].rpartition(": ")
    lines[place] = f"{name or lines[place].rstrip(':')}{colon or ': '}{random.choice(VALUES)}"


def _other_key(lines: list[str], random: Random) -> None:
    place = random.randrange(len(lines))
    name, _, value = lines[place].partition(":")
    indent = name[: len(name) - len(name.lstrip(" -"))]
    lines[place] = f"{indent}{random.choice(KEYS)}:{value}"


def _one_more(lines: list[str], random: Random) -> None:
    line = f"{random.choice(('', '  ', '  - '))}{random.choice(KEYS)}: {random.choice(VALUES)}"
    lines.insert(random.randrange(len(lines) + 1), line)


def _twice(lines: list[str], random: Random) -> None:
    lines.insert(random.randrange(len(lines)), random.choice(lines))


def _gone(lines: list[str], random: Random) -> None:
    lines[random.randrange(len(lines))] = random.choice(
        ("", "---", "...", "# x", "%YAML 9.9", "\t")
    )


def _moved(lines: list[str], random: Random) -> None:
    place = random.randrange(len(lines))
    lines[place] = random.choice(("  " + lines[place], lines[place].lstrip(), "- " + lines[place]))


def _very_many(lines: list[str], random: Random) -> None:
    count = random.choice((300, 3_000, 30_000))
    name, value = random.choice(("k", "sweep.k", "'a b'")), random.choice(("1", "[1, 2]", "{}"))
    lines += [f"{name}{number}: {value}" for number in range(count)]


_CHANGES = (
    *(_other_value, _other_value, _other_value, _other_key, _one_more, _one_more),
    *(_twice, _gone, _moved, _very_many),
)


def _with_odd_bytes(content: bytes, random: Random) -> bytes:
    place = random.randrange(len(content) + 1)
    odd = random.choice((b"\0", b"\xff", b"\x1b[31m", b"\x80", b"\xef\xbb\xbf", b"\r", b"\xc2\x85"))
    return content[:place] + odd + content[place + random.randint(0, 1) :]
