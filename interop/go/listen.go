// Listen: the listener's role, the ready line it shares with the relay's, and
// serving until stdin ends or a signal arrives.

package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"
)

type readyLine struct {
	PeerID           string   `json:"peer_id"`
	Addresses        []string `json:"addresses"`
	CircuitAddresses []string `json:"circuit_addresses"`
}

func runListen(s settings) error {
	node, err := newNode(s)
	if err != nil {
		return err
	}
	defer node.Close()
	circuits := []string{}
	if s.relay != nil {
		if err := reserve(node, s); err != nil {
			return err
		}
		circuit := s.relay.Encapsulate(ma.StringCast("/p2p-circuit/p2p/" + node.ID().String()))
		circuits = append(circuits, circuit.String())
	}
	return serve(node, circuits)
}

// reserve asks the relay for a slot directly, not through AutoRelay, whose boot
// delay of minutes starts with the first refusal. The reservation holds for as
// long as its connection does, an hour at most.
func reserve(node host.Host, s settings) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	relay, err := peer.AddrInfoFromP2pAddr(s.relay)
	if err != nil {
		return fmt.Errorf("RELAY: %w", err)
	}
	if err := connectRelay(ctx, node, *relay, s.holePunch); err != nil {
		return err
	}
	slot, err := client.Reserve(ctx, node, *relay)
	if err != nil {
		return err
	}
	log.Printf("reserved until %s; addresses %s; limits %s, %d bytes; voucher %t",
		slot.Expiration.UTC().Format("15:04:05Z"), texts(slot.Addrs), slot.LimitDuration, slot.LimitData, slot.Voucher != nil)
	return nil
}

// serve prints the ready line and returns when stdin ends or a signal arrives.
func serve(node host.Host, circuits []string) error {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	addresses, err := fullAddresses(node)
	if err != nil {
		return err
	}
	ready := readyLine{PeerID: node.ID().String(), Addresses: addresses, CircuitAddresses: circuits}
	if err := printLine(ready); err != nil {
		return err
	}
	go func() {
		defer cancel()
		if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
			log.Printf("reading stdin: %v", err)
		}
	}()
	<-ctx.Done()
	return nil
}
