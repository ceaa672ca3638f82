//! MapReduce's data: splits, records, partitions, sort, merge.
