//! Starts, kills and inspects clusters of real processes on one machine.
