//! The process that leads one job.
