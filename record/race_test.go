//go:build race

package record

// racing says that the race detector is on: it allocates, and takes minutes for the largest inputs.
const racing = true
