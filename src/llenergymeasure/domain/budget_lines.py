"""What an energy figure's interval is made of: the lines of its budget by their stable names."""

from __future__ import annotations

OUTSIDE_LEVEL = "outside_level_times_overhang"
OUTSIDE_TIME = "outside_power_times_tick_time"
OUTSIDE_SLOPE = "tail_slope_times_overhang"
KNOWN_TAIL = "known_tail"
UNKNOWN_TAIL = "unknown_tail"
UNSEEN_TAIL = "unseen_tail"
EDGE_TIME = "level_step_times_edge_time"
EDGE_SPLIT = "edge_tick_split"
QUANTUM = "counter_quantum"
GAPS = "sampling_gaps"
PART_TIME = "part_time_sampling"
ALIASING = "aliased_load"
POWER_SHAPE = "averaging_window"
NO_GUARD = "no_guard"

# Of a longer window: these grow with the root of its length, those with the length itself.
GROWING = frozenset({PART_TIME, GAPS})
LINEAR = frozenset({ALIASING, POWER_SHAPE})

# What is assumed of the sensor (its lag at the edges, its averaging window, load in step with it)
# and of tails is alike in every window; the others vary from window to window, so the spread
# between cycles shows them already.
COMMON = frozenset({EDGE_TIME, POWER_SHAPE, ALIASING, KNOWN_TAIL, UNSEEN_TAIL})
