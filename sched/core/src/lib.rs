//! Fuxi's scheduler: who gets which resources where.
