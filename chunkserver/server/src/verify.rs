//! `pangu-chunkserver verify DIR`: checks a disk that no process uses.
