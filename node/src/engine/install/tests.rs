//! The machine under any order of results, restarts and time.
