package load

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// startBaseline runs the baseline's server or the floor's as a child, by the command line self with the
// flags appended to it, so that its CPU time can be read like any server's.
func startBaseline(ctx context.Context, self []string, stderr io.Writer, flags ...string) (*baselineServer, error) {
	args := slices.Concat(self[1:], []string{"baseline", "--serve"}, flags)
	// An interrupt goes to the whole process group; the child ends when its stdin does.
	child := exec.CommandContext(context.WithoutCancel(ctx), self[0], args...)
	child.Stderr = stderr
	child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := child.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the baseline: %w", err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start the baseline: %w", err)
	}
	if err := child.Start(); err != nil {
		return nil, fmt.Errorf("start the baseline: %w", err)
	}
	out := bufio.NewReader(stdout)
	end := func() (counts baselineCounts, err error) {
		kill := time.AfterFunc(10*time.Second, func() { _ = child.Process.Kill() })
		defer kill.Stop()
		stdin.Close()
		err = json.NewDecoder(out).Decode(&counts)
		if waited := child.Wait(); waited != nil {
			err = waited
		}
		if err != nil {
			return counts, fmt.Errorf("end of the baseline: %w", err)
		}
		return counts, nil
	}
	kill := time.AfterFunc(10*time.Second, func() { _ = child.Process.Kill() })
	defer kill.Stop()
	line, err := out.ReadString('\n')
	port, bad := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || bad != nil {
		_, _ = end()
		return nil, fmt.Errorf("start the baseline: it said %q", line)
	}
	return &baselineServer{
		pid:     child.Process.Pid,
		address: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port},
		end:     end,
	}, nil
}
