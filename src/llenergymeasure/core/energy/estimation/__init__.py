"""The steps from readings to joules: pure functions from data to data.

``series`` holds readings, ``ticks`` finds when a counter publishes, ``band`` reads a counter at
the edges of a window, ``power_path`` integrates power, ``budget`` adds up what is not known,
``aliasing`` warns of load in step with the sensor, ``closure`` compares passes, ``baseline`` takes
idle power off, ``calibration_fit`` learns a sensor's timing from bursts. ``estimator``, one level
up, puts them together.
"""
