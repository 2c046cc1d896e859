"""The steps from readings to joules: pure functions from data to data.

``sensor`` puts readings on one clock and holds what is known of their timing, ``ticks`` finds when
a counter publishes, ``edges`` reads a counter where a window begins and ends, ``tail`` takes off
what a device draws after its work, ``integral`` gives energy by one sensor, ``budget`` adds up what
is not known, ``aliasing`` warns of load in step with the sensor, and ``calibration_fit`` learns a
sensor's timing from bursts. ``estimator``, one level up, puts them together.
"""
