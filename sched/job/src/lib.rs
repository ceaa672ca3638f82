//! One job of Fuxi: its tasks, instances and attempts.
