"""Questions and requests as a user would type them, with or without pasted context."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from mixed_1k.encyclopaedia import join_facts, load_fact_records, title_heading
from mixed_1k.fitting import count_words, fill_from_groups, fill_with
from mixed_1k.logs import TASKS as LOG_TASKS
from mixed_1k.logs import LogFile
from mixed_1k.passages import Draft, PassageWriter, Usage
from mixed_1k.source import (
    Record,
    Scene,
    read_blocks,
    read_groups,
    read_lines,
    read_records,
    read_theme,
)
from mixed_1k.tables import TABLES
from mixed_1k.tables import TASKS as TABLE_TASKS
from mixed_1k.targets import LONGEST
from mixed_1k.web import join_paragraphs, load_web_records, web_heading

QUESTION_LIMIT = 42
CODE_LIMIT = 240
ROWS_FROM = 90
SEVERAL_MAILS_FROM = 180
SINGLE_MAIL_LIMIT = 130
SITUATION_LIMIT = 125
CLOSINGS = ("Kind regards,", "Best wishes,", "Many thanks,", "All the best,")
SENDERS = [
    "Philipp",
    "Renate",
    "Sofia",
    "Tobias",
    "Ursula",
    "Xenia",
    "Magnus",
    "Petra",
    "Samuel",
    "Judith",
]
Writer = Callable[[int, random.Random], Draft]


def greeting_heading(record: Record, scene: Scene, _rng: random.Random) -> list[str]:
    """Use the first line of an e-mail, or the head of some notes, as the heading."""
    return [scene.fill(record.title)]


def join_email(_record: Record, lines: Sequence[str], rng: random.Random) -> str:
    """Join the sentences of an e-mail and sign it."""
    return " ".join(lines) + f"\n{rng.choice(CLOSINGS)}\n{rng.choice(SENDERS)}"


def join_notes(_record: Record, lines: Sequence[str], _rng: random.Random) -> str:
    """Put every note on its own line."""
    return "\n".join(f"- {line}" for line in lines)


def join_sentences(_record: Record, lines: Sequence[str], _rng: random.Random) -> str:
    """Join sentences into one paragraph."""
    return " ".join(lines)


def read_tasks(name: str) -> list[str]:
    """Return the tasks in the first line of a record file."""
    return read_theme(name).split("|")


class Requests:
    """Writer of questions and requests."""

    def __init__(self, usage: Usage) -> None:
        """Load tasks, questions and everything that may be pasted into a request."""
        self._usage = usage
        self._questions = read_lines("requests/questions.txt")
        self._question_wishes = read_groups("requests/question_wishes.txt")
        self._task_wishes = read_groups("requests/task_wishes.txt")
        self._code = read_blocks("requests/code.txt")
        self._code_tasks = read_lines("requests/code_tasks.txt")
        self._code_context = read_lines("requests/code_context.txt")
        self._writers = self._ranged_writers()

    def write(self, target: int, rng: random.Random) -> Draft:
        """Return a request of about `target` words."""
        if target <= QUESTION_LIMIT:
            return self._question(target, rng)
        options = [
            (weight, write)
            for least, most, weight, write in self._writers
            if least <= target <= most
        ]
        weights = [weight for weight, _ in options]
        return rng.choices([write for _, write in options], weights)[0](target, rng)

    def _ranged_writers(self) -> list[tuple[int, int, int, Writer]]:
        """Return the least and the most words, the weight and the writer of every sort."""
        mails = read_records("requests/emails.txt")
        single, several = read_tasks("requests/emails.txt"), read_lines("requests/mail_tasks.txt")
        return [
            (0, SITUATION_LIMIT, 6, self._situation_writer()),
            (0, CODE_LIMIT, 3, self._review_code),
            (0, LONGEST, 4, self._passage_writer()),
            (0, LONGEST, 4, self._page_writer()),
            (0, SINGLE_MAIL_LIMIT, 3, self._pasted(mails, single, greeting_heading, join_email)),
            (
                SEVERAL_MAILS_FROM,
                LONGEST,
                3,
                self._pasted(mails, several, greeting_heading, join_email),
            ),
            (0, LONGEST, 2, self._notes_writer()),
            (ROWS_FROM, LONGEST, 4, self._explain_log),
            (ROWS_FROM, LONGEST, 4, self._study_table),
        ]

    def _situation_writer(self) -> Writer:
        records = read_records("requests/situations.txt")
        return PassageWriter(
            records, self._usage, greeting_heading, join_sentences, density=0.95
        ).write

    def _passage_writer(self) -> Writer:
        tasks = read_lines("requests/passage_tasks.txt")
        return self._pasted(load_fact_records(), tasks, title_heading, join_facts)

    def _page_writer(self) -> Writer:
        tasks = read_lines("requests/web_tasks.txt")
        return self._pasted(load_web_records(), tasks, web_heading, join_paragraphs)

    def _notes_writer(self) -> Writer:
        name = "requests/notes.txt"
        return self._pasted(read_records(name), read_tasks(name), greeting_heading, join_notes)

    def _pasted(
        self,
        records: Sequence[Record],
        tasks: Sequence[str],
        heading: Callable[..., list[str]],
        join: Callable[..., str],
    ) -> Writer:
        context = PassageWriter(records, self._usage, heading, join, density=0.75)

        def write(target: int, rng: random.Random) -> Draft:
            opening = [rng.choice(tasks)]
            if target > 70 and rng.random() < 0.6:
                opening += fill_from_groups(self._task_wishes, rng.randint(5, 16), rng)
            request = " ".join(opening)
            draft = context.write(target - count_words(request), rng)
            return Draft(f"{request}\n\n{draft.text}", draft.lines)

        return write

    def _question(self, target: int, rng: random.Random) -> Draft:
        sizes = {question: count_words(question) for question in self._questions}
        exact = [question for question, size in sizes.items() if size == target]
        shorter = [
            text for text, size in sizes.items() if 3 < size <= target - 2 and text[-1] == "?"
        ]
        if exact and (target <= 9 or not shorter or rng.random() < 0.6):
            return self._plain(rng.choice(exact))
        question = min(shorter, key=lambda text: self._usage.counts[text] + 3 * rng.random())
        wishes = fill_from_groups(self._question_wishes, target - sizes[question], rng)
        return Draft(" ".join([question, *wishes]), (question,))

    def _plain(self, question: str) -> Draft:
        return Draft(question, (question,))

    def _explain_log(self, target: int, rng: random.Random) -> Draft:
        log = LogFile(rng, target // 10)
        return self._rows(target, rng, [rng.choice(LOG_TASKS)], "", log.next_line)

    def _study_table(self, target: int, rng: random.Random) -> Draft:
        table = rng.choice(TABLES)
        places = iter(range(target))
        head = [table.introduction, rng.choice(TABLE_TASKS)]
        return self._rows(target, rng, head, table.header, lambda: table.row(rng, next(places)))

    def _rows(
        self,
        target: int,
        rng: random.Random,
        opening: Sequence[str],
        header: str,
        next_row: Callable[[], str],
    ) -> Draft:
        rows = [header] if header else []
        reserve = rng.randint(5, 14)
        room = target - reserve - count_words(" ".join([*opening, header]))
        while count_words(row := next_row()) <= room:
            rows.append(row)
            room -= count_words(row)
        wishes = fill_from_groups(self._task_wishes, room + reserve, rng)
        text = " ".join([*opening, *wishes]) + "\n\n" + "\n".join(rows)
        return Draft(text, ())

    def _review_code(self, target: int, rng: random.Random) -> Draft:
        task = rng.choice(self._code_tasks)
        room = target - count_words(task)
        blocks: list[str] = []
        for block in rng.sample(self._code, len(self._code)):
            if count_words(block) <= room * 0.7:
                blocks.append(block)
                room -= count_words(block)
        remarks = fill_with(self._code_context, room, rng)
        text = " ".join([task, *remarks]) + "\n\n" + "\n\n".join(blocks)
        return Draft(text.strip(), tuple(blocks))
