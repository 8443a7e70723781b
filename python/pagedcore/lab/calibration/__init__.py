"""What a machine can do, measured: the constants of the cost model, and a device for the simulator."""

from .calibrate import Calibration, calibrate
from .fit import fit_costs

__all__ = ["Calibration", "calibrate", "fit_costs"]
