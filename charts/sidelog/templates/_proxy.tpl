{{- /*
The sidecar, for the end of initContainers. Input, a dictionary:

  root      $, of the chart or of the chart that has this one as a dependency
  service   the name of the service in records; the pod's label app.kubernetes.io/name where unset
  upstream  the number of the port that the app listens on
  portName  the name that the Service targets; "http" where unset. The app's own port must not have it
  port      the sidecar's number, proxy.port where unset: the old number of an app that moved to another port
  config    a ConfigMap with the key proxy.toml, in place of proxy.config

Settings are the values of this chart, also where it is a dependency of the chart that asks.
*/ -}}
{{- define "sidelog.own" -}}
{{- $own := get (.root.Subcharts | default dict) "sidelog" | default .root -}}
{{- if ne $own.Chart.Name "sidelog" }}{{ fail "sidelog.proxy: root must be the $ of a chart that has sidelog among its dependencies" }}{{ end -}}
{{- dict "values" $own.Values "version" $own.Chart.AppVersion | toYaml -}}
{{- end }}

{{- define "sidelog.proxy.container" -}}
{{- $own := include "sidelog.own" . | fromYaml -}}
{{- $values := $own.values -}}
{{- $proxy := $values.proxy -}}
{{- $port := .port | default $proxy.port | int -}}
{{- if not (semverCompare ">=1.33.0-0" .root.Capabilities.KubeVersion.Version) }}{{ fail "sidelog.proxy.container needs Kubernetes 1.33: before, a Service doesn't find the named port of a native sidecar" }}{{ end -}}
{{- range keys . }}{{ if not (has . (list "root" "service" "upstream" "portName" "port" "config")) }}{{ printf "sidelog.proxy.container: there is no %q: it takes root, service, upstream, portName, port, config" . | fail }}{{ end }}{{ end -}}
{{- /* The injector's is an expression. */ -}}
{{- if not (regexMatch "^([0-9]+|sidelog[.]cel:.+)$" (toString .upstream)) }}{{ fail "sidelog.proxy.container: upstream must be the number that the app listens on" }}{{ end -}}
{{- if eq (toString .upstream) (toString $port) }}{{ fail "sidelog.proxy.container: upstream and port are the same: the app must listen on another number" }}{{ end -}}
{{- if has (toString (int $proxy.adminPort)) (list (toString .upstream) (toString $port)) }}{{ fail "sidelog.proxy.container: upstream or port is the number of proxy.adminPort: give that another one" }}{{ end -}}
{{- $spool := include "sidelog.kibibytes" $proxy.spool.sizeLimit -}}
name: sidelog
image: {{ include "sidelog.image" (dict "image" $proxy.image "version" $own.version) | quote }}
imagePullPolicy: {{ $proxy.image.pullPolicy }}
# A native sidecar: it starts before the app and ends after it, and no Job waits for its end.
restartPolicy: Always
env:
  {{- if .service }}
  - { name: SERVICE_NAME, value: {{ .service | quote }} }
  {{- else }}
  - name: SERVICE_NAME
    valueFrom: { fieldRef: { fieldPath: "metadata.labels['app.kubernetes.io/name']" } }
  {{- end }}
  - { name: ENVIRONMENT, value: {{ $values.environment | quote }} }
  - { name: PORT, value: {{ $port | toString | quote }} }
  - { name: UPSTREAM_URL, value: {{ printf "http://127.0.0.1:%v" .upstream | quote }} }
  - { name: NATS_URL, value: {{ $values.nats.url | quote }} }
  - { name: NATS_STREAM, value: {{ $values.nats.stream | quote }} }
  - { name: NATS_SUBJECT, value: {{ $values.nats.subject | quote }} }
  - { name: JAEGER_URL, value: {{ $values.otlp.endpoint | quote }} }
  {{- if $values.ipv6 }}
  - { name: SIDELOG_LISTENERS__0__ADDRESS, value: "[::]:{{ $port }}" }
  {{- end }}
  - { name: SIDELOG_ADMIN__ADDRESS, value: "{{ ternary "[::]" "0.0.0.0" $values.ipv6 }}:{{ int $proxy.adminPort }}" }
  - { name: SIDELOG_SPOOL__DIRECTORY, value: /var/spool/sidelog }
  - { name: SIDELOG_SPOOL__MAX_BYTES, value: {{ printf "%dKiB" (div (mul $spool 3) 4) }} }
  - { name: SIDELOG_SHUTDOWN__DEADLINE, value: {{ $proxy.drain.deadline | quote }} }
  {{- if $values.nats.existingSecret }}
  - { name: SIDELOG_NATS__CREDS_FILE, value: /etc/sidelog/nats/nats.creds }
  {{- end }}
  {{- if $values.nats.tls.existingSecret }}
  - { name: SIDELOG_NATS__TLS__CA_FILE, value: /etc/sidelog/nats-tls/ca.crt }
  {{- end }}
  {{- if or $values.nats.existingSecret $values.nats.tls.existingSecret }}
  - { name: SIDELOG_NATS__WAIT_FOR_FILES, value: "true" }
  {{- end }}
  {{- if .config }}
  - { name: SIDELOG_CONFIG, value: /etc/sidelog/config/proxy.toml }
  {{- else if $proxy.config }}
  - { name: SIDELOG_CONFIG_TOML, value: {{ $proxy.config | quote }} }
  {{- end }}
  {{- with $proxy.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  # The name that the Service targets. The app's own port must not have it: of two the app wins.
  - { name: {{ .portName | default "http" | quote }}, containerPort: {{ $port }}, protocol: TCP }
  - { name: sidelog-admin, containerPort: {{ int $proxy.adminPort }}, protocol: TCP }
lifecycle:
  # Returns at once: clients are told to close. It serves on until SIGTERM comes, after the app's end.
  preStop: { exec: { command: [sidelog-proxy, drain] } }
# The app starts when this has succeeded: the sidecar listens, whatever NATS does.
startupProbe:
  {{- include "sidelog.proxy.probe" (dict "proxy" $proxy "path" "/livez") | nindent 2 }}
  periodSeconds: 1
  failureThreshold: 30
# It is ready when it accepts, whatever NATS and the app do.
readinessProbe:
  {{- include "sidelog.proxy.probe" (dict "proxy" $proxy "path" "/readyz") | nindent 2 }}
  periodSeconds: 5
# No CPU limit: it would delay traffic. The spool counts as ephemeral storage.
resources:
  requests:
    {{- toYaml (merge (dict) ($proxy.resources.requests | default dict) (dict "ephemeral-storage" $proxy.spool.sizeLimit)) | nindent 4 }}
  limits:
    {{- toYaml (merge (dict) ($proxy.resources.limits | default dict) (dict "ephemeral-storage" (printf "%dKi" (mul $spool 2)))) | nindent 4 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  capabilities: { drop: [ALL] }
  seccompProfile: { type: RuntimeDefault }
volumeMounts:
  - { name: sidelog-spool, mountPath: /var/spool/sidelog }
  {{- if $values.nats.existingSecret }}
  - { name: sidelog-nats, mountPath: /etc/sidelog/nats, readOnly: true }
  {{- end }}
  {{- if $values.nats.tls.existingSecret }}
  - { name: sidelog-nats-tls, mountPath: /etc/sidelog/nats-tls, readOnly: true }
  {{- end }}
  {{- if .config }}
  - { name: sidelog-config, mountPath: /etc/sidelog/config, readOnly: true }
  {{- end }}
  {{- with $proxy.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- /* The volumes that the container mounts, for the pod. Input: root, and config where the container has it. */ -}}
{{- define "sidelog.proxy.volumes" -}}
{{- $values := (include "sidelog.own" . | fromYaml).values -}}
# Records while NATS is away; it goes with the pod. The proxy uses 75 %: over the limit the pod is evicted.
- { name: sidelog-spool, emptyDir: { sizeLimit: {{ $values.proxy.spool.sizeLimit }} } }
{{- with $values.nats.existingSecret }}
- { name: sidelog-nats, secret: { secretName: {{ . | quote }}, optional: true } }
{{- end }}
{{- with $values.nats.tls.existingSecret }}
- { name: sidelog-nats-tls, secret: { secretName: {{ . | quote }}, optional: true } }
{{- end }}
{{- with .config }}
- { name: sidelog-config, configMap: { name: {{ . | quote }}, optional: true } }
{{- end }}
{{- end }}

{{- define "sidelog.proxy.probe" -}}
{{- if eq .proxy.probes.type "exec" -}}
exec: { command: [wget, -q, -O, /dev/null, "http://127.0.0.1:{{ int .proxy.adminPort }}{{ .path }}"] }
{{- else -}}
httpGet: { path: {{ .path }}, port: {{ int .proxy.adminPort }} }
{{- end -}}
{{- end }}
