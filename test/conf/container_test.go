package conf

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/auditchain/auditchain/test/servers"
)

// user is whom the image, MinIO and the pod run as: nonroot of the distroless images.
const user = 65532

// instruction is one of the Dockerfile's, with its flags apart.
type instruction struct {
	name  string
	flags map[string]string
	args  []string
}

func dockerfile(t *testing.T) []instruction {
	t.Helper()
	var all []instruction
	for line := range strings.Lines(read(t, "Dockerfile")) {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		i := instruction{name: fields[0], flags: make(map[string]string)}
		for _, f := range fields[1:] {
			if flag, ok := strings.CutPrefix(f, "--"); ok && len(i.args) == 0 {
				name, value, _ := strings.Cut(flag, "=")
				i.flags[name] = value
			} else {
				i.args = append(i.args, f)
			}
		}
		all = append(all, i)
	}
	return all
}

func find(all []instruction, name string) []string {
	for _, i := range slices.Backward(all) {
		if i.name == name {
			return i.args
		}
	}
	return nil
}

// sent says whether .dockerignore lets a path of the repository into the build: its last matching line decides.
func sent(t *testing.T, name string) bool {
	t.Helper()
	ok := true
	for line := range strings.Lines(read(t, ".dockerignore")) {
		line = strings.TrimSpace(line)
		pattern, back := strings.CutPrefix(line, "!")
		if pattern == "" || strings.HasPrefix(line, "#") {
			continue
		}
		expr := regexp.QuoteMeta(pattern)
		expr = strings.ReplaceAll(expr, `\*\*/`, "(.*/)?")
		expr = strings.ReplaceAll(expr, `\*`, "[^/]*")
		if regexp.MustCompile("^" + expr + "(/.*)?$").MatchString(name) {
			ok = back
		}
	}
	return ok
}

func TestDockerfileCopiesWhatIsThere(t *testing.T) {
	makefile := read(t, "Makefile")
	copied := make(map[string]bool)
	for _, i := range dockerfile(t) {
		if i.name != "COPY" {
			continue
		}
		for _, source := range i.args[:len(i.args)-1] {
			copied[source] = true
			switch built, ok := strings.CutPrefix(source, "/src/"); {
			case ok && i.flags["from"] == "build":
				if !strings.Contains(makefile, "\n"+built+":") || !regexp.MustCompile(`(?m)^build:.* `+built+`( |$)`).MatchString(makefile) {
					t.Errorf("`make build` does not build %s", built)
				}
			case i.flags["from"] == "build":
				if source != "/empty/" {
					t.Errorf("COPY %s: not known", source)
				}
			default:
				name := path.Clean(source)
				if _, err := os.Stat(filepath.Join(servers.Root(), name)); err != nil {
					t.Error(err)
				}
				if name != "." && !sent(t, name) {
					t.Errorf("%s is kept out by .dockerignore", name)
				}
			}
		}
	}
	for _, want := range []string{"/src/build/out_auditchain.so", "/src/build/auditchain", "conf/aggregator/"} {
		if !copied[want] {
			t.Errorf("%s is not copied", want)
		}
	}
}

// What the plugin and the command are built from must reach the build, and little else.
func TestDockerContext(t *testing.T) {
	var files strings.Builder // a template of go list's
	for _, kind := range []string{"GoFiles", "CgoFiles", "CFiles", "HFiles", "EmbedFiles"} {
		files.WriteString("{{range ." + kind + "}}{{$dir}}/{{.}} {{end}}")
	}
	cmd := exec.Command("go", "list", "-deps", "-f", "{{if and .Module .Module.Main}}{{$dir := .Dir}}"+files.String()+"{{end}}", "./plugin", "./cmd/auditchain")
	cmd.Dir = servers.Root()
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Fields(string(out))
	if len(names) == 0 {
		t.Fatal("no files")
	}
	for _, f := range names {
		name, err := filepath.Rel(servers.Root(), f)
		if err != nil {
			t.Fatal(err)
		}
		if !sent(t, name) {
			t.Errorf("%s is kept out by .dockerignore", name)
		}
	}
	for _, name := range []string{".git/config", "build/out_auditchain.so", "test/conf/glibc_test.go", "chain/chain_test.go", "conf/kubernetes/values.yaml", "README.md"} {
		if sent(t, name) {
			t.Errorf("%s is sent to the build", name)
		}
	}
}

// compose is what is looked at in conf/docker-compose.yaml.
type compose struct {
	Services map[string]struct {
		Image      string
		User       string
		Entrypoint []string
		Volumes    []string
		Ports      []string
		Configs    []struct{ Source, Target string }
	}
	Configs map[string]struct{ Content string }
}

func readCompose(t *testing.T) compose {
	t.Helper()
	var c compose
	if err := yaml.Unmarshal([]byte(read(t, "conf/docker-compose.yaml")), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// values are what is looked at in conf/kubernetes/values.yaml.
type values struct {
	Kind               string
	ReplicaCount       int                   `yaml:"replicaCount"`
	UpdateStrategy     struct{ Type string } `yaml:"updateStrategy"`
	Image              struct{ Repository, Tag string }
	PodSecurityContext struct {
		FSGroup int `yaml:"fsGroup"`
	} `yaml:"podSecurityContext"`
	SecurityContext struct {
		RunAsNonRoot bool `yaml:"runAsNonRoot"`
		RunAsUser    int  `yaml:"runAsUser"`
		RunAsGroup   int  `yaml:"runAsGroup"`
	} `yaml:"securityContext"`
	Grace      int `yaml:"terminationGracePeriodSeconds"`
	ExtraPorts []struct {
		Port          string
		ContainerPort string `yaml:"containerPort"`
	} `yaml:"extraPorts"`
	Env          []struct{ Name string }
	ExtraVolumes []struct {
		Name                  string
		PersistentVolumeClaim struct {
			ClaimName string `yaml:"claimName"`
		} `yaml:"persistentVolumeClaim"`
	} `yaml:"extraVolumes"`
	ExtraVolumeMounts []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
		ReadOnly  bool   `yaml:"readOnly"`
	} `yaml:"extraVolumeMounts"`
	Args   []string
	Config struct {
		ExtraFiles map[string]string `yaml:"extraFiles"`
	}
}

func readValues(t *testing.T) values {
	t.Helper()
	var v values
	if err := yaml.Unmarshal([]byte(read(t, "conf/kubernetes/values.yaml")), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestImages(t *testing.T) {
	v := readValues(t)
	ours := v.Image.Repository + ":" + v.Image.Tag
	if !strings.Contains(read(t, "Dockerfile"), "--build-arg VERSION="+v.Image.Tag+" -t "+ours+" .") {
		t.Errorf("the Dockerfile does not say how to build %s", ours)
	}
	if !strings.Contains(read(t, "conf/docker-compose.yaml"), "VERSION: "+v.Image.Tag+"\n") {
		t.Errorf("compose does not build version %s", v.Image.Tag)
	}
	var images []string
	for name, s := range readCompose(t).Services {
		images = append(images, s.Image)
		if want := ours; name != "minio" && s.Image != want {
			t.Errorf("compose: %s runs %s, not %s", name, s.Image, want)
		}
		if name == "minio" && s.User != userAndGroup() {
			t.Errorf("compose: MinIO runs as %q", s.User)
		}
	}
	for _, i := range dockerfile(t) {
		if i.name == "FROM" {
			images = append(images, i.args[0])
		}
	}
	for _, image := range images {
		if _, tag, ok := strings.Cut(image, ":"); !ok || tag == "latest" {
			t.Errorf("%s has no version", image)
		}
	}
}

func userAndGroup() string { return strconv.Itoa(user) + ":" + strconv.Itoa(user) }

// The image has everything where the configurations look for it.
func TestPaths(t *testing.T) {
	image := dockerfile(t)
	destinations := make(map[string]string) // to source
	for _, i := range image {
		if i.name != "COPY" {
			continue
		}
		for _, source := range i.args[:len(i.args)-1] {
			to := i.args[len(i.args)-1]
			if !strings.HasSuffix(source, "/") {
				to += path.Base(source)
			}
			destinations[to] = source
			if source == "/empty/" && i.flags["chown"] != userAndGroup() {
				t.Errorf("%s does not belong to %s", to, userAndGroup())
			}
		}
	}
	if got := find(image, "USER"); !slices.Equal(got, []string{userAndGroup()}) {
		t.Errorf("USER %v", got)
	}
	command := regexp.MustCompile(`"([^"]+)"\]$`).FindStringSubmatch(strings.Join(find(image, "CMD"), " "))
	if command == nil || destinations[path.Dir(command[1])+"/"] != "conf/aggregator/" {
		t.Errorf("CMD %v names no file of conf/aggregator", find(image, "CMD"))
	} else {
		read(t, path.Join("conf/aggregator", path.Base(command[1])))
	}
	for _, s := range all(t) {
		output := s.config.output(t)
		for _, plugin := range s.config.Plugins {
			if destinations[plugin] != "/src/build/"+path.Base(plugin) {
				t.Errorf("%s: %s is not in the image", s.name, plugin)
			}
		}
		for _, dir := range []string{path.Dir(output["store_dir"]), path.Dir(s.config.Service["storage.path"]), path.Dir(output["signing_key"])} {
			if destinations[dir+"/"] != "/empty/" {
				t.Errorf("%s: %s is not made for us in the image", s.name, dir)
			}
		}
		if port := s.config.input(t)["port"]; find(image, "EXPOSE")[0] != port {
			t.Errorf("%s: port %s is not exposed", s.name, port)
		}
	}
	// Compose's configuration takes the place of the image's, and its volumes that of the directories.
	for name, s := range readCompose(t).Services {
		for _, c := range s.Configs {
			if command != nil && c.Target != command[1] {
				t.Errorf("compose: %s has its configuration at %s", name, c.Target)
			}
		}
		for _, v := range s.Volumes {
			to := strings.Split(v, ":")[1]
			if name != "minio" && destinations[to+"/"] != "/empty/" {
				t.Errorf("compose: %s mounts %s at %s, which is root's", name, v, to)
			}
		}
		if len(s.Entrypoint) > 0 && destinations["/usr/bin/"+s.Entrypoint[0]] == "" {
			t.Errorf("compose: %s runs %s, which the image does not have", name, s.Entrypoint[0])
		}
	}
}

func TestKubernetes(t *testing.T) {
	v := readValues(t)
	if v.Kind != "Deployment" || v.ReplicaCount != 1 || v.UpdateStrategy.Type != "Recreate" {
		t.Error("more than one pod may write at once")
	}
	if c := v.SecurityContext; !c.RunAsNonRoot || c.RunAsUser != user || c.RunAsGroup != user || v.PodSecurityContext.FSGroup != user {
		t.Errorf("runs as %+v, %+v", c, v.PodSecurityContext)
	}
	config := parseYAML(t, v.Config.ExtraFiles["fluent-bit.yaml"])
	const closing = 4 // seconds that the plugin takes on top
	if grace, err := strconv.Atoi(config.Service["grace"]); err != nil || v.Grace <= 2*(grace+closing) {
		t.Errorf("the pod gets %d s to end", v.Grace)
	}
	if !slices.Equal(v.Args, []string{"--config=/fluent-bit/etc/conf/fluent-bit.yaml"}) {
		t.Errorf("args %v", v.Args)
	}
	if len(v.ExtraPorts) != 1 || v.ExtraPorts[0].ContainerPort != config.input(t)["port"] || v.ExtraPorts[0].Port != config.input(t)["port"] {
		t.Errorf("ports %+v", v.ExtraPorts)
	}
	var names []string
	for _, e := range v.Env {
		names = append(names, e.Name)
	}
	for name := range environment {
		if !slices.Contains(names, name) {
			t.Errorf("%s is not set", name)
		}
	}
	mounted := make(map[string]bool) // whether read-only
	for _, m := range v.ExtraVolumeMounts {
		mounted[m.MountPath] = m.ReadOnly
	}
	for dir, readOnly := range map[string]bool{
		path.Dir(config.output(t)["store_dir"]):   false,
		path.Dir(config.Service["storage.path"]):  false,
		path.Dir(config.output(t)["signing_key"]): true,
		path.Dir(config.input(t)["tls.crt_file"]): true,
		path.Dir(config.input(t)["tls.ca_file"]):  true,
		path.Dir(config.input(t)["tls.key_file"]): true,
	} {
		if got, ok := mounted[dir]; !ok || got != readOnly {
			t.Errorf("%s is not mounted, or not as it should be", dir)
		}
	}
	var claim struct {
		Metadata struct{ Name string }
	}
	if err := yaml.Unmarshal([]byte(read(t, "conf/kubernetes/volume.yaml")), &claim); err != nil {
		t.Fatal(err)
	}
	named := false
	for _, volume := range v.ExtraVolumes {
		named = named || volume.PersistentVolumeClaim.ClaimName == claim.Metadata.Name
	}
	if !named {
		t.Errorf("the claim %s is not used", claim.Metadata.Name)
	}
}
