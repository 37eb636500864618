package attack

import (
	"github.com/auditchain/auditchain/chain"
	"time"
)

var _ chain.Hash

var withKey []attack

func rotated(a *arena) {
	writer(a)
	a.rotate(time.Now(), newKey(a.T))
	a.heartbeat(time.Now())
	a.load()
}
