{{- define "shoprelay.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "shoprelay.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The nodes; what a try-it Redis is not. */}}
{{- define "shoprelay.nodes" -}}
{{ include "shoprelay.selector" . }}
app.kubernetes.io/component: node
{{- end -}}

{{- define "shoprelay.labels" -}}
{{ include "shoprelay.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "shoprelay.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "shoprelay.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "shoprelay.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "shoprelay.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "shoprelay.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.runAsUser }}
runAsUser: {{ int64 . }}
runAsGroup: {{ int64 . }}
fsGroup: {{ int64 . }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Seconds from SIGTERM to SIGKILL: the wait before, the drain, and what is left to write after it. */}}
{{- define "shoprelay.graceSeconds" -}}
{{- add (int64 .Values.preStopSeconds) (int64 .Values.drainSeconds) 15 -}}
{{- end -}}

{{/* What devices ask for: the old server's clients come to every path. */}}
{{- define "shoprelay.devicePath" -}}
{{- if (.Values.settings.legacy | default dict).enabled -}}/{{- else -}}/ws{{- end -}}
{{- end -}}

{{/* One value of the settings file. Numbers come as floats, of which TOML would make 5.0. */}}
{{- define "shoprelay.tomlValue" -}}
{{- if kindIs "float64" . -}}{{ int64 . }}{{- else -}}{{ toJson . }}{{- end -}}
{{- end -}}

{{/* The settings file: what stands in no table first, as TOML wants it. */}}
{{- define "shoprelay.settingsFile" -}}
{{- range $key, $value := .Values.settings }}
{{- if not (kindIs "map" $value) }}
{{ $key }} = {{ include "shoprelay.tomlValue" $value }}
{{- end }}
{{- end }}
{{- range $table, $values := .Values.settings }}
{{- if kindIs "map" $values }}

[{{ $table }}]
{{- range $key, $value := $values }}
{{ $key }} = {{ include "shoprelay.tomlValue" $value }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Keys for tokens as a setting takes them: [kid=]path, parted by commas. */}}
{{- define "shoprelay.keyFiles" -}}
{{- $files := list -}}
{{- range $index, $key := .keys -}}
{{- $path := printf "/etc/shoprelay/keys/%s-%d" $.name $index -}}
{{- $files = append $files (ternary (printf "%s=%s" $key.kid $path) $path (not (empty $key.kid))) -}}
{{- end -}}
{{- join "," $files -}}
{{- end -}}

{{/* Whether anything is mounted under /etc/shoprelay/keys. */}}
{{- define "shoprelay.hasKeys" -}}
{{- if or .Values.redis.ca.secretName .Values.auth.apiKeys.secretName .Values.auth.jwt.secrets .Values.auth.jwt.publicKeys .Values.tls.enabled -}}
true
{{- end -}}
{{- end -}}
