module modelrollout.dev/tests/cluster/go/testpod

go 1.26.0
