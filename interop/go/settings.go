// Settings: the environment variables of the interop contract, read once and
// checked before anything is started.

package main

import (
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/pnet"
	ma "github.com/multiformats/go-multiaddr"
)

type settings struct {
	role         string
	seed         []byte // nil means a random identity
	listen       []ma.Multiaddr
	targets      []ma.Multiaddr
	target       ma.Multiaddr // the first of them
	relay        ma.Multiaddr
	security     string
	psk          pnet.PSK // nil for the public network
	echoBytes    int64
	perfUpload   int64
	perfDownload int64
	holePunch    bool
	directWait   time.Duration // 0 means any connection will do
	timeout      time.Duration
	relayLimited bool
	autoNAT      string // empty for none
	verdicts     int    // an AutoNAT client waits for so many
}

const (
	loopbackListen = "/ip4/127.0.0.1/tcp/0"
	anywhereListen = "/ip4/0.0.0.0/tcp/0"
)

// environment reads variables and remembers the first thing wrong with them.
type environment struct {
	getenv func(string) string
	err    error
}

func readSettings(getenv func(string) string) (settings, error) {
	env := &environment{getenv: getenv}
	s := settings{
		role:         env.oneOf("ROLE", "", "listen", "dial", "relay"),
		seed:         env.seed("KEY_SEED"),
		targets:      env.addresses("TARGET", ""),
		relay:        env.address("RELAY"),
		security:     env.oneOf("SECURITY", "noise", "noise", "tls"),
		psk:          env.psk("PSK_FILE"),
		echoBytes:    int64(env.count("ECHO_BYTES", 10<<20)),
		perfUpload:   int64(env.count("PERF_UPLOAD", 0)),
		perfDownload: int64(env.count("PERF_DOWNLOAD", 0)),
		holePunch:    env.oneOf("HOLE_PUNCH", "0", "0", "1") == "1",
		directWait:   env.seconds("DIRECT_SECONDS", 0),
		timeout:      env.seconds("TIMEOUT_SECONDS", 60),
		relayLimited: env.oneOf("RELAY_LIMITED", "1", "0", "1") == "1",
		verdicts:     int(env.count("VERDICTS", 1)),
	}
	env.oneOf("MUXER", "yamux", "yamux")
	s.listen = env.addresses("LISTEN", defaultListen(s))
	if env.text("AUTONAT", "") != "" {
		s.autoNAT = env.oneOf("AUTONAT", "", v1Client, v1Server, v2Client, v2Server)
	}
	if len(s.targets) > 0 {
		s.target = s.targets[0]
	}
	if s.role == "dial" && s.target == nil {
		env.fail("TARGET", "is required for ROLE=dial")
	}
	if len(s.targets) > 1 && s.autoNAT == "" {
		env.fail("TARGET", "must be a single multiaddr without AUTONAT")
	}
	return s, env.err
}

// defaultListen is empty for a dialer, except that hole punching dials from the
// port it listens on: without a listener there is no port to punch with.
func defaultListen(s settings) string {
	switch {
	case s.holePunch:
		return anywhereListen
	case s.role == "dial":
		return ""
	}
	return loopbackListen
}

func (e *environment) fail(name, why string) {
	if e.err == nil {
		e.err = fmt.Errorf("%s %s", name, why)
	}
}

func (e *environment) text(name, fallback string) string {
	if value := e.getenv(name); value != "" {
		return value
	}
	return fallback
}

func (e *environment) oneOf(name, fallback string, allowed ...string) string {
	value := e.text(name, fallback)
	for _, candidate := range allowed {
		if value == candidate {
			return value
		}
	}
	e.fail(name, fmt.Sprintf("must be one of %s, not %q", strings.Join(allowed, ", "), value))
	return ""
}

func (e *environment) count(name string, fallback uint64) uint64 {
	value, err := strconv.ParseUint(e.text(name, strconv.FormatUint(fallback, 10)), 10, 62)
	if err != nil {
		e.fail(name, err.Error())
	}
	return value
}

func (e *environment) seconds(name string, fallback float64) time.Duration {
	value, err := strconv.ParseFloat(e.text(name, strconv.FormatFloat(fallback, 'g', -1, 64)), 64)
	if err != nil || value < 0 || value > 86400 {
		e.fail(name, "must be a number of seconds between 0 and 86400")
	}
	return time.Duration(value * float64(time.Second))
}

func (e *environment) seed(name string) []byte {
	text := e.text(name, "")
	if text == "" {
		return nil
	}
	seed, err := hex.DecodeString(text)
	if err != nil || len(seed) != ed25519.SeedSize {
		e.fail(name, "must be 64 hex characters") // the value is a secret
	}
	return seed
}

func (e *environment) psk(name string) pnet.PSK {
	path := e.text(name, "")
	if path == "" {
		return nil
	}
	file, err := os.Open(path)
	if err != nil {
		e.fail(name, err.Error())
		return nil
	}
	defer file.Close()
	key, err := pnet.DecodeV1PSK(file)
	if err != nil {
		e.fail(name, err.Error())
	}
	return key
}

func (e *environment) address(name string) ma.Multiaddr {
	found := e.addresses(name, "")
	if len(found) == 0 {
		return nil
	}
	if len(found) > 1 {
		e.fail(name, "must be a single multiaddr")
	}
	return found[0]
}

func (e *environment) addresses(name, fallback string) []ma.Multiaddr {
	var found []ma.Multiaddr
	for _, text := range strings.Split(e.text(name, fallback), ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		address, err := ma.NewMultiaddr(text)
		if err != nil {
			e.fail(name, err.Error())
			continue
		}
		found = append(found, address)
	}
	return found
}
