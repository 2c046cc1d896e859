"""Invented tables in CSV form with questions about them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Row = Callable[[random.Random, int], str]
TASKS = (
    "Turn the list below into a table with aligned columns.",
    "Which entries in the following table look unusual, and why?",
    "Summarise the data below in four sentences.",
    "Sort the rows below by their last column and show only the top five.",
    "Check the following data for gaps and obvious typing errors.",
    "Please write a short paragraph for a report that is based on this table.",
    "What kind of chart would suit the data below? Explain how you would label it.",
    "Write a formula for a spreadsheet that adds up the last column of this table.",
    "Give me the lowest, the highest and the middle value of the last column.",
    "Compare the first half of the rows below with the second half.",
)


@dataclass(frozen=True)
class Table:
    """A kind of table: the sentence before it, its header and its rows."""

    introduction: str
    header: str
    row: Row


def _date(index: int) -> str:
    return f"{1 + index % 28:02d}.{1 + index // 28 % 12:02d}."


def _expense(rng: random.Random, index: int) -> str:
    item = rng.choice(EXPENSES)
    amount = rng.randint(180, 9400) / 100
    return f"{_date(index // 2)}, {item}, {rng.choice(('cash', 'card'))}, {amount:.2f}"


def _weather(rng: random.Random, index: int) -> str:
    low = 2 + index // 6 % 10 + rng.randint(-5, 3)
    high = low + rng.randint(3, 9)
    wet = ("snow", "sleet") if low < 0 else ("light rain", "showers", "steady rain")
    sky = rng.choice(("clear", "cloudy", "fog in the morning", *wet))
    rain = rng.randint(1, 160) / 10 if sky in wet else 0
    return f"{_date(index)}, {low}, {high}, {sky}, {rain}"


def _departure(rng: random.Random, index: int) -> str:
    minutes = 310 + 17 * index + rng.randint(0, 9)
    time = f"{minutes // 60 % 24:02d}:{minutes % 60:02d}"
    place = rng.choice(DESTINATIONS)
    return f"{time}, {place}, platform {rng.randint(1, 9)}, {rng.randint(0, 34)}"


def _loan(rng: random.Random, index: int) -> str:
    subject = rng.choice(SHELVES)
    return f"{1000 + 7 * index + rng.randint(0, 6)}, {subject}, {rng.randint(3, 60)}"


def _stock(rng: random.Random, index: int) -> str:
    item = GOODS[(index * 7 + rng.randint(0, 6)) % len(GOODS)]
    price = rng.randint(90, 2900) / 100
    return f"{item}, shelf {rng.choice('ABCDEF')}{rng.randint(1, 30)}, {price:.2f}, " + str(
        rng.randint(0, 240)
    )


EXPENSES: Sequence[str] = [
    "train ticket",
    "bread and milk",
    "pharmacy",
    "bicycle repair",
    "coffee with a client",
    "stamps",
    "light bulbs",
    "cinema",
    "vegetables from the market",
    "birthday present",
    "phone bill",
    "swimming pool",
    "haircut",
    "printer paper",
    "lunch in the canteen",
    "garden hose",
    "rent for the hall",
    "cleaning materials",
]
DESTINATIONS: Sequence[str] = [
    "Kiel",
    "Basel",
    "Ghent",
    "Turin",
    "Lund",
    "Graz",
    "Leeds",
    "Porto",
    "Brno",
    "Malmö",
    "Zürich via Olten",
    "Lille",
    "Arnhem",
    "Cork",
    "Tampere",
    "Bergen",
    "Vigo",
    "Trieste",
    "Poznań",
    "Metz",
]
SHELVES: Sequence[str] = [
    "crime novels",
    "picture books",
    "cookery",
    "local history",
    "travel guides",
    "poetry",
    "audio books",
    "board games",
    "languages",
    "science for children",
    "gardening",
    "music scores",
    "large print",
]
GOODS: Sequence[str] = [
    "wood screws 4 x 40",
    "hinges",
    "sandpaper",
    "paint brush",
    "masking tape",
    "copper pipe",
    "door handle",
    "garden gloves",
    "watering can",
    "extension cable",
    "spirit level",
    "wall plugs",
    "rope",
    "padlock",
    "ladder",
    "bucket",
    "hammer",
    "saw blade",
    "wood glue",
    "paint roller",
    "bird feeder",
    "flower pot",
    "hand cream",
    "torch",
]
TABLES = (
    Table("These are the expenses of our club.", "date, purpose, payment, amount", _expense),
    Table(
        "I wrote down the weather in my garden.",
        "date, lowest, highest, sky, rain in mm",
        _weather,
    ),
    Table(
        "The list shows the departures from our station and the delay in minutes.",
        "time, destination, platform, delay",
        _departure,
    ),
    Table(
        "The library gave us a list of loans with the number of days.",
        "member, shelf, days",
        _loan,
    ),
    Table(
        "Here is part of the stock list of a hardware shop.",
        "article, place, price, pieces",
        _stock,
    ),
)
