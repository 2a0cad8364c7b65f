{{/* What the chart decides itself; everything else is in the settings file. */}}
{{- define "shoprelay.environment" -}}
- name: SHOPRELAY_CONFIG
  value: /etc/shoprelay/settings/shoprelay.toml
- name: SHOPRELAY_LISTEN
  value: {{ ternary "0.0.0.0:8080" "none" (or .Values.tls.keepPlain (not .Values.tls.enabled)) | quote }}
- name: SHOPRELAY_API_LISTEN
  value: {{ ternary "0.0.0.0:8081" "none" .Values.api.enabled | quote }}
- name: SHOPRELAY_METRICS_LISTEN
  value: "0.0.0.0:9090"
- name: SHOPRELAY_DRAIN_WINDOW
  value: {{ printf "%ds" (int64 .Values.drainSeconds) | quote }}
- name: SHOPRELAY_STORE
  {{- if .Values.redis.tryIt.enabled }}
  value: redis://{{ include "shoprelay.fullname" . }}-redis:6379
  {{- else }}
  valueFrom:
    secretKeyRef:
      name: {{ .Values.redis.url.secretName }}
      key: {{ .Values.redis.url.secretKey }}
  {{- end }}
{{- if .Values.redis.ca.secretName }}
- name: SHOPRELAY_STORE_CA
  value: /etc/shoprelay/keys/redis-ca.crt
{{- end }}
- name: SHOPRELAY_AUTH
  value: {{ .Values.auth.mode | quote }}
{{- if .Values.auth.insecure }}
- name: SHOPRELAY_INSECURE
  value: "true"
{{- end }}
{{- with .Values.auth.jwt.secrets }}
- name: SHOPRELAY_JWT_SECRET_FILE
  value: {{ include "shoprelay.keyFiles" (dict "name" "jwt-secret" "keys" .) | quote }}
{{- end }}
{{- with .Values.auth.jwt.publicKeys }}
- name: SHOPRELAY_JWT_PUBLIC_KEY_FILE
  value: {{ include "shoprelay.keyFiles" (dict "name" "jwt-public-key" "keys" .) | quote }}
{{- end }}
{{- if .Values.auth.apiKeys.secretName }}
- name: SHOPRELAY_API_KEYS_FILE
  value: /etc/shoprelay/keys/api-keys.toml
{{- end }}
{{- if .Values.tls.enabled }}
- name: SHOPRELAY_TLS_LISTEN
  value: "0.0.0.0:8443"
- name: SHOPRELAY_TLS_CERT
  value: /etc/shoprelay/keys/tls.crt
- name: SHOPRELAY_TLS_KEY
  value: /etc/shoprelay/keys/tls.key
{{- if .Values.tls.clientCa.secretName }}
- name: SHOPRELAY_TLS_CLIENT_CA
  value: /etc/shoprelay/keys/client-ca.crt
{{- end }}
{{- if .Values.tls.clientCrl.secretName }}
- name: SHOPRELAY_TLS_CLIENT_CRL
  value: /etc/shoprelay/keys/client.crl
{{- end }}
{{- end }}
{{- end -}}

{{/* The files of the Secrets, each under the name that the variable above says. */}}
{{- define "shoprelay.keySources" -}}
{{- with .Values.redis.ca }}{{ if .secretName }}
{{- include "shoprelay.keySource" (dict "secret" .secretName "key" .secretKey "path" "redis-ca.crt") }}
{{- end }}{{ end }}
{{- with .Values.auth.apiKeys }}{{ if .secretName }}
{{- include "shoprelay.keySource" (dict "secret" .secretName "key" .secretKey "path" "api-keys.toml") }}
{{- end }}{{ end }}
{{- range $index, $key := .Values.auth.jwt.secrets }}
{{- include "shoprelay.keySource" (dict "secret" $key.secretName "key" $key.secretKey "path" (printf "jwt-secret-%d" $index)) }}
{{- end }}
{{- range $index, $key := .Values.auth.jwt.publicKeys }}
{{- include "shoprelay.keySource" (dict "secret" $key.secretName "key" $key.secretKey "path" (printf "jwt-public-key-%d" $index)) }}
{{- end }}
{{- with .Values.tls }}{{ if .enabled }}
{{- include "shoprelay.keySource" (dict "secret" .secretName "key" "tls.crt" "path" "tls.crt") }}
{{- include "shoprelay.keySource" (dict "secret" .secretName "key" "tls.key" "path" "tls.key") }}
{{- if .clientCa.secretName }}
{{- include "shoprelay.keySource" (dict "secret" .clientCa.secretName "key" .clientCa.secretKey "path" "client-ca.crt") }}
{{- end }}
{{- if .clientCrl.secretName }}
{{- include "shoprelay.keySource" (dict "secret" .clientCrl.secretName "key" .clientCrl.secretKey "path" "client.crl") }}
{{- end }}
{{- end }}{{ end }}
{{- end -}}

{{- define "shoprelay.keySource" }}
- secret:
    name: {{ .secret }}
    items:
      - key: {{ .key }}
        path: {{ .path }}
{{- end -}}
