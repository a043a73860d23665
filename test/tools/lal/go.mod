// The origin lalserver for the tests, built by test/tools/install.sh.
module srsx/test/tools/lal

go 1.26.0

require github.com/q191201771/lal v0.37.4

require github.com/q191201771/naza v0.30.48 // indirect
