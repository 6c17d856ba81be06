module example/headers

go 1.24

require postern v0.0.0

replace postern => ../../../sdk/go
