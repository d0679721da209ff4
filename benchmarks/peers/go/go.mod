// The versions are those of interop/go: the build names that file with -modfile.
module p2pnet/benchmarks/go
