// Runner: the contracts of the transport tests of libp2p/unified-testing and of
// libp2p/test-plans, with go-libp2p as configured here. TEST_KEY tells the
// former; the listener's address goes through Redis.

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const runnerTimeout = 180 * time.Second

type runner struct {
	transport, security, ip, redis, key string
	dialer, unified                     bool
}

var listenForms = map[string]string{
	"tcp":     "/ip4/%s/tcp/0",
	"ws":      "/ip4/%s/tcp/0/ws",
	"quic-v1": "/ip4/%s/udp/0/quic-v1",
}

// readRunner returns nil where the environment speaks of neither contract.
func readRunner(getenv func(string) string) *runner {
	switch {
	case getenv("TEST_KEY") != "":
		return &runner{
			transport: getenv("TRANSPORT"), security: getenv("SECURE_CHANNEL"),
			ip: getenv("LISTENER_IP"), redis: getenv("REDIS_ADDR"),
			key:    getenv("TEST_KEY") + "_listener_multiaddr",
			dialer: getenv("IS_DIALER") == "true", unified: true,
		}
	case getenv("is_dialer") != "":
		return &runner{
			transport: getenv("transport"), security: getenv("security"),
			ip: getenv("ip"), redis: getenv("redis_addr"), key: "listenerAddr",
			dialer: getenv("is_dialer") == "true",
		}
	}
	return nil
}

func (r *runner) run() error {
	s := settings{security: r.security}
	if !r.dialer {
		address, err := ma.NewMultiaddr(fmt.Sprintf(listenForms[r.transport], r.ip))
		if err != nil {
			return err
		}
		s.listen = []ma.Multiaddr{address}
	}
	node, err := newNode(s)
	if err != nil {
		return err
	}
	defer node.Close()
	store, err := net.Dial("tcp", r.redis)
	if err != nil {
		return err
	}
	defer store.Close()
	if r.dialer {
		return r.dial(node, store)
	}
	return r.listen(node, store)
}

func (r *runner) listen(node host.Host, store io.ReadWriter) error {
	own := "/p2p/" + node.ID().String()
	for _, address := range node.Addrs() {
		if manet.IsIPLoopback(address) {
			continue
		}
		if _, err := command(store, "RPUSH", r.key, address.String()+own); err != nil {
			return err
		}
		time.Sleep(runnerTimeout)
		return errors.New("nobody ended this listener")
	}
	return errors.New("there is no address but loopback")
}

func (r *runner) dial(node host.Host, store io.ReadWriter) error {
	ctx, cancel := context.WithTimeout(context.Background(), runnerTimeout)
	defer cancel()
	reply, err := command(store, "BLPOP", r.key, "180")
	if err != nil {
		return err
	}
	if len(reply) != 2 {
		return errors.New("no listener came")
	}
	target, err := peer.AddrInfoFromString(reply[1])
	if err != nil {
		return err
	}
	start := time.Now()
	if err := node.Connect(ctx, *target); err != nil {
		return err
	}
	result := <-ping.Ping(ctx, node, target.ID)
	if result.Error != nil {
		return result.Error
	}
	both, rtt := *milliseconds(time.Since(start)), *milliseconds(result.RTT)
	if r.unified {
		_, err = fmt.Printf("latency:\n  handshake_plus_one_rtt: %.3f\n  ping_rtt: %.3f\n  unit: ms\n", both, rtt)
		return err
	}
	_, err = fmt.Fprintf(os.Stdout, "{\"handshakePlusOneRTTMillis\": %f, \"pingRTTMilllis\": %f}\n", both, rtt)
	return err
}

// command sends one command to Redis and returns the strings of its reply.
func command(store io.ReadWriter, words ...string) ([]string, error) {
	var text strings.Builder
	fmt.Fprintf(&text, "*%d\r\n", len(words))
	for _, word := range words {
		fmt.Fprintf(&text, "$%d\r\n%s\r\n", len(word), word)
	}
	if _, err := io.WriteString(store, text.String()); err != nil {
		return nil, err
	}
	return readReply(bufio.NewReader(store))
}

func readReply(from *bufio.Reader) ([]string, error) {
	line, err := from.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimRight(line, "\r\n")
	switch line[0] {
	case '-':
		return nil, errors.New(line)
	case '$', '*':
		count, err := strconv.Atoi(line[1:])
		if err != nil || count < 0 {
			return nil, err
		}
		if line[0] == '$' {
			value := make([]byte, count+2)
			_, err := io.ReadFull(from, value)
			return []string{string(value[:count])}, err
		}
		var all []string
		for range count {
			one, err := readReply(from)
			if err != nil {
				return nil, err
			}
			all = append(all, one...)
		}
		return all, nil
	}
	return []string{line[1:]}, nil
}
