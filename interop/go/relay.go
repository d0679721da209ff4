// Relay: the circuit relay v2 role. It serves always, on any address: go-libp2p
// on its own would wait for AutoNAT and keep private addresses to itself.

package main

import (
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
)

func runRelay(s settings) error {
	node, err := newNode(s)
	if err != nil {
		return err
	}
	defer node.Close()
	everyAddress := func(ma.Multiaddr) bool { return true }
	options := []relay.Option{relay.WithReservationAddressFilter(everyAddress)}
	if !s.relayLimited {
		options = append(options, relay.WithInfiniteLimits())
	}
	service, err := relay.New(node, options...)
	if err != nil {
		return err
	}
	defer service.Close()
	return serve(node, []string{})
}
