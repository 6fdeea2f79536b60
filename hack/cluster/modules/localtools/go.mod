module culvert.invalid/hack/cluster/localtools

go 1.26.0
