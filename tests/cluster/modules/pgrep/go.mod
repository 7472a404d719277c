module rankwise.dev/tests/cluster/pgrep

go 1.26.0
