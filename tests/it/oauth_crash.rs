//! Tollgate never loses a grant: processes that are killed, disks that are full, many that share one store.
