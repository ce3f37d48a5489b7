package docs

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"letshare-server/internal/config"
	"letshare-server/internal/metrics"
)

// exported are the names under which a node's metrics are scraped, each with its type.
func exported(t *testing.T) map[string]string {
	t.Helper()
	m := metrics.New()
	m.Refused("token")
	m.Watch(func() metrics.Held { return metrics.Held{Storage: &metrics.Storage{}, Redis: &metrics.Redis{}} })
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics?format=prometheus", nil))
	all := make(map[string]string)
	for _, match := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(w.Body.String(), -1) {
		all[match[1]] = match[2]
		if match[2] == "histogram" {
			for _, part := range []string{"_bucket", "_sum", "_count"} {
				all[match[1]+part] = "counter"
			}
		}
	}
	if len(all) < 30 {
		t.Fatalf("only %d metrics: %s", len(all), w.Body)
	}
	return all
}

var metricName = regexp.MustCompile(`\bletshare_[a-z_]+`)

func TestAlertsAskForMetricsThatExist(t *testing.T) {
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	decoder := yaml.NewDecoder(strings.NewReader(read(t, "deploy/prometheus-alerts.yml")))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	all, seen := exported(t), make(map[string]bool)
	page := read(t, "docs/operations/cluster.md") + read(t, "docs/operations/monitoring.md")
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			if seen[rule.Alert] {
				t.Errorf("%s is there twice", rule.Alert)
			}
			seen[rule.Alert] = true
			checkExpression(t, all, rule.Alert, rule.Expr)
			if rule.Labels["severity"] == "" || rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
				t.Errorf("%s does not say how bad it is, what it is, or what to do", rule.Alert)
			}
			if !strings.Contains(page, "`"+rule.Alert+"`") {
				t.Errorf("%s is not documented", rule.Alert)
			}
			if _, err := time.ParseDuration(rule.For); rule.For != "" && err != nil {
				t.Errorf("%s: %v", rule.Alert, err)
			}
		}
	}
	if len(seen) < 5 {
		t.Errorf("only %d alerts", len(seen))
	}
}

// checkExpression checks what can be known of a query without a Prometheus: its metrics exist,
// those that only grow are asked for how fast, and no others, and brackets match.
func checkExpression(t *testing.T, all map[string]string, where, expr string) {
	t.Helper()
	names := metricName.FindAllStringIndex(expr, -1)
	if len(names) == 0 && !strings.Contains(expr, "up{") {
		t.Errorf("%s: %q asks for nothing", where, expr)
	}
	for _, at := range names {
		name := expr[at[0]:at[1]]
		kind, known := all[name]
		if !known {
			t.Errorf("%s: there is no metric %s", where, name)
		}
		before := expr[:at[0]]
		if grows := strings.HasSuffix(before, "rate(") || strings.HasSuffix(before, "increase("); grows != (kind == "counter") {
			t.Errorf("%s: %s is a %s: %q", where, name, kind, expr)
		}
	}
	for _, pair := range []string{"()", "[]", "{}"} {
		if strings.Count(expr, pair[:1]) != strings.Count(expr, pair[1:]) {
			t.Errorf("%s: %q", where, expr)
		}
	}
}

func TestTheDashboardAsksForMetricsThatExist(t *testing.T) {
	var board struct {
		UID, Title string
		Panels     []struct {
			ID          int
			Type, Title string
			Targets     []struct{ Expr string }
		}
	}
	text := read(t, "deploy/grafana-dashboard.json")
	if err := json.Unmarshal([]byte(text), &board); err != nil {
		t.Fatal(err)
	}
	all, ids, asked := exported(t), make(map[int]bool), make(map[string]bool)
	for _, panel := range board.Panels {
		if ids[panel.ID] {
			t.Errorf("two panels have the id %d", panel.ID)
		}
		ids[panel.ID] = true
		if panel.Type == "row" {
			continue
		}
		if len(panel.Targets) == 0 {
			t.Errorf("%s shows nothing", panel.Title)
		}
		for _, target := range panel.Targets {
			checkExpression(t, all, panel.Title, target.Expr)
			for _, name := range metricName.FindAllString(target.Expr, -1) {
				asked[name] = true
			}
		}
	}
	// Whoever adds a metric for Redis adds it here, too.
	for name := range all {
		if strings.HasPrefix(name, "letshare_redis_") && !asked[name] {
			t.Errorf("the dashboard does not show %s", name)
		}
	}
}

func TestEveryMetricIsDocumented(t *testing.T) {
	page := read(t, "docs/operations/monitoring.md")
	all := exported(t)
	for name, kind := range all {
		if kind == "histogram" || !strings.HasSuffix(name, "_bucket") && !strings.HasSuffix(name, "_sum") && !strings.HasSuffix(name, "_count") {
			if !strings.Contains(page, "| `"+name+"` | "+kind) {
				t.Errorf("%s, a %s, is not documented", name, kind)
			}
		}
	}
	for _, name := range metricName.FindAllString(page, -1) {
		if all[name] == "" {
			t.Errorf("%s is documented, and does not exist", name)
		}
	}
}

func TestTheClusterOfDockerComposeFitsTogether(t *testing.T) {
	type service struct {
		Build, Image string
		Environment  map[string]string
		Command      string
		Ports        []string
		Volumes      []string
		DependsOn    []string `yaml:"depends_on"`
		Grace        string   `yaml:"stop_grace_period"`
	}
	var file struct {
		Services map[string]service
		Networks map[string]struct {
			IPAM struct {
				Config []struct{ Subnet string }
			}
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, "docker-compose.cluster.yml")), &file); err != nil {
		t.Fatal(err)
	}
	var nodes []string
	for name, s := range file.Services {
		if s.Build == "" {
			continue
		}
		nodes = append(nodes, name)
		// The settings are good, once Compose has put in what the operator has not set.
		environ := []string{}
		for variable, value := range s.Environment {
			environ = append(environ, variable+"="+regexp.MustCompile(`\$\{(\w+):-(.*)\}`).ReplaceAllString(value, "$2"))
		}
		c, warnings, err := config.Load(config.Options{Environ: environ, Dir: filepath.Join(root, "configs")})
		if err != nil || len(warnings) > 0 {
			t.Fatalf("%s: %v %q", name, err, warnings)
		}
		host, port, _ := strings.Cut(c.Redis.Addresses[0], ":")
		if _, there := file.Services[host]; !there || port != "6379" {
			t.Errorf("%s asks %s for Redis", name, c.Redis.Addresses[0])
		}
		if c.Mode != config.Production {
			t.Errorf("%s runs in %s mode", name, c.Mode)
		}
		if grace, err := time.ParseDuration(s.Grace); err != nil || grace < c.Server.ShutdownGrace+5*time.Second {
			t.Errorf("%s is killed after %s, and stops in %v", name, s.Grace, c.Server.ShutdownGrace)
		}
		if got, want := fmt.Sprint(c.Server.TrustedProxies), "["+file.Networks["default"].IPAM.Config[0].Subnet+"]"; got != want {
			t.Errorf("%s trusts the proxies %s, and the network is %s", name, got, want)
		}
	}
	if len(nodes) != 3 {
		t.Errorf("the nodes are %q", nodes)
	}
	if redis := file.Services["redis"]; !strings.Contains(redis.Command, "--maxmemory-policy noeviction") || !strings.Contains(redis.Command, "--appendonly yes") {
		t.Errorf("Redis is started with %q", redis.Command)
	}
	balancer := file.Services["balancer"]
	conf, _, _ := strings.Cut(balancer.Volumes[0], ":")
	text, err := os.ReadFile(filepath.Join(root, conf))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(nodes)
	for _, upstream := range []string{"nodes", "comet"} {
		block := regexp.MustCompile(`(?s)upstream ` + upstream + ` \{(.*?)\}`).FindSubmatch(text)
		if block == nil {
			t.Fatalf("the balancer has no upstream %s", upstream)
		}
		var servers []string
		for _, m := range regexp.MustCompile(`server (\S+):8080 `).FindAllSubmatch(block[1], -1) {
			servers = append(servers, string(m[1]))
		}
		if !slices.Equal(servers, nodes) {
			t.Errorf("%s leads to %q, and the nodes are %q", upstream, servers, nodes)
		}
	}
}
