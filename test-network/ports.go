package testnetwork

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Blocks of ports are picked from here: above the ports of well-known services, below those that systems hand out to clients.
const (
	firstFreePort = 18000
	lastFreePort  = 32000
)

// checkPorts returns ErrPortTaken, with the node and its port, when another program listens on any port of the block.
func (l layout) checkPorts(orgs int) error {
	for org := 1; org <= orgs; org++ {
		for offset, use := range portNames {
			address := l.address(org, offset)
			listener, err := net.Listen("tcp", address)
			if err != nil {
				return fmt.Errorf("%s: its %s port %s: %w (%w): stop the program that listens there or choose another base port",
					NodeName(org, use.role), use.use, address, ErrPortTaken, errors.Unwrap(err))
			}
			listener.Close()
		}
	}
	return nil
}

// freeBasePort picks a block of ports that nobody listens on. Two callers that pick at once may pick the same, so blocks are
// picked at random.
func freeBasePort(orgs int) (int, error) {
	size := orgs * portsPerOrg
	blocks := (lastFreePort - firstFreePort) / size
	for _, block := range rand.Perm(blocks) {
		l := layout{basePort: firstFreePort + block*size}
		if l.checkPorts(orgs) == nil {
			return l.basePort, nil
		}
	}
	return 0, fmt.Errorf("no block of %d free ports between %s and %s", size, strconv.Itoa(firstFreePort), strconv.Itoa(lastFreePort))
}
