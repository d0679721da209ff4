// Works: what a driver is asked to do.

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

const smallBytes = 32

type driver struct {
	nodes []host.Host
}

func (d *driver) do(asked request) (answer, error) {
	switch asked.Work {
	case "hold":
		return d.hold(asked.Addresses)
	case "collect":
		debug.FreeOSMemory()
		return answer{}, nil
	case "release":
		return d.release()
	case "dial":
		return dial(d.nodes[0], asked)
	}
	remote, err := connect(d.nodes[0], asked.Address)
	if err != nil {
		return answer{}, err
	}
	switch asked.Work {
	case "echo":
		return echo(d.nodes[0], remote, asked.Amount)
	case "streams":
		return streams(d.nodes[0], remote, asked)
	case "upload", "download", "both":
		return bulk(d.nodes[0], remote, asked)
	}
	return answer{}, fmt.Errorf("unknown work %q", asked.Work)
}

// connect returns once identify has run, too, as Connect does.
func connect(node host.Host, address string) (peer.ID, error) {
	info, err := peer.AddrInfoFromString(address)
	if err != nil {
		return "", err
	}
	if err := node.Connect(context.Background(), *info); err != nil {
		return "", err
	}
	return info.ID, nil
}

func bulk(node host.Host, remote peer.ID, asked request) (answer, error) {
	ways := map[string][]protocol.ID{
		"upload": {sinkProtocol}, "download": {sourceProtocol}, "both": {sinkProtocol, sourceProtocol},
	}[asked.Work]
	protocols := slices.Repeat(ways, max(1, asked.Streams))
	share := asked.Amount / len(protocols)
	opened := []network.Stream{}
	for _, id := range protocols {
		stream, err := node.NewStream(context.Background(), remote, id)
		if err != nil {
			return answer{}, err
		}
		defer stream.Close()
		opened = append(opened, stream)
	}
	began := time.Now()
	results := make(chan error)
	for number, stream := range opened {
		move := sendUp
		if protocols[number] == sourceProtocol {
			move = takeDown
		}
		go func() { results <- move(stream, share) }()
	}
	var failed error
	for range opened {
		failed = errors.Join(failed, <-results)
	}
	return answer{Seconds: time.Since(began).Seconds()}, failed
}

func sendUp(stream network.Stream, count int) error {
	if err := sendZeros(stream, count); err != nil {
		return err
	}
	if err := stream.CloseWrite(); err != nil {
		return err
	}
	var told uint64
	if err := binary.Read(stream, binary.BigEndian, &told); err != nil {
		return err
	}
	return check(told, count)
}

func takeDown(stream network.Stream, count int) error {
	if err := binary.Write(stream, binary.BigEndian, uint64(count)); err != nil {
		return err
	}
	received, err := drain(stream)
	if err != nil {
		return err
	}
	return check(received, count)
}

func check(arrived uint64, count int) error {
	if arrived != uint64(count) {
		return fmt.Errorf("%d of %d bytes arrived", arrived, count)
	}
	return nil
}

func echo(node host.Host, remote peer.ID, count int) (answer, error) {
	stream, err := node.NewStream(context.Background(), remote, echoProtocol)
	if err != nil {
		return answer{}, err
	}
	defer stream.Close()
	done := answer{}
	for range count {
		began := time.Now()
		if err := roundTrip(stream); err != nil {
			return done, err
		}
		done.add(time.Since(began))
	}
	return done, nil
}

func roundTrip(stream network.Stream) error {
	if _, err := stream.Write(block[:smallBytes]); err != nil {
		return err
	}
	_, err := io.ReadFull(stream, make([]byte, smallBytes))
	return err
}

func (a *answer) add(spent time.Duration) {
	a.Seconds += spent.Seconds()
	a.Times = append(a.Times, spent.Seconds())
}

func streams(node host.Host, remote peer.ID, asked request) (answer, error) {
	var taken atomic.Int64
	results := make(chan error)
	began := time.Now()
	for range asked.Streams {
		go func() {
			var failed error
			for failed == nil && taken.Add(1) <= int64(asked.Amount) {
				failed = openAndEcho(node, remote)
			}
			results <- failed
		}()
	}
	var failed error
	for range asked.Streams {
		failed = errors.Join(failed, <-results)
	}
	return answer{Seconds: time.Since(began).Seconds()}, failed
}

func openAndEcho(node host.Host, remote peer.ID) error {
	stream, err := node.NewStream(context.Background(), remote, echoProtocol)
	if err != nil {
		return err
	}
	defer stream.Close()
	return roundTrip(stream)
}

func dial(node host.Host, asked request) (answer, error) {
	info, err := peer.AddrInfoFromString(asked.Address)
	if err != nil {
		return answer{}, err
	}
	done := answer{}
	for range asked.Amount {
		if err := node.Network().ClosePeer(info.ID); err != nil {
			return done, err
		}
		began := time.Now()
		if _, err := connect(node, asked.Address); err != nil {
			return done, err
		}
		done.add(time.Since(began))
	}
	return done, nil
}

func (d *driver) hold(addresses []string) (answer, error) {
	began := time.Now()
	for _, node := range d.nodes {
		for _, address := range addresses {
			if _, err := connect(node, address); err != nil {
				return answer{}, err
			}
		}
	}
	return answer{Seconds: time.Since(began).Seconds()}, nil
}

func (d *driver) release() (answer, error) {
	began := time.Now()
	for _, node := range d.nodes {
		for _, remote := range node.Network().Peers() {
			if err := node.Network().ClosePeer(remote); err != nil {
				return answer{}, err
			}
		}
	}
	return answer{Seconds: time.Since(began).Seconds()}, nil
}
