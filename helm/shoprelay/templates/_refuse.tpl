{{/* What no schema can say: values that each are right and do not go together. Each says what to do. */}}
{{- define "shoprelay.refuse" -}}
{{- with .Values -}}
{{- if and .redis.tryIt.enabled .redis.url.secretName -}}
{{- fail "redis.tryIt.enabled and redis.url.secretName are both given; leave one of them out" -}}
{{- end -}}
{{- if not (or .redis.tryIt.enabled .redis.url.secretName) -}}
{{- fail "there is no Redis; name a Secret with its address in redis.url.secretName, or to try it set redis.tryIt.enabled" -}}
{{- end -}}
{{- if and (eq .auth.mode "none") (not .auth.insecure) -}}
{{- fail "auth.mode is none, so anyone could log in; set it to jwt or mtls, or to try it set auth.insecure" -}}
{{- end -}}
{{- if and (eq .auth.mode "jwt") (not .auth.jwt.secrets) (not .auth.jwt.publicKeys) -}}
{{- fail "auth.mode is jwt and there is no key for tokens; list one in auth.jwt.secrets or auth.jwt.publicKeys" -}}
{{- end -}}
{{- if and (ne .auth.mode "jwt") (or .auth.jwt.secrets .auth.jwt.publicKeys) (not (.settings.legacy | default dict).require_token) -}}
{{- fail "there are keys for tokens and auth.mode is not jwt, so no token would be looked at; set auth.mode to jwt" -}}
{{- end -}}
{{- if and (eq .auth.mode "mtls") (not (and .tls.enabled .tls.clientCa.secretName)) -}}
{{- fail "auth.mode is mtls, which needs tls.enabled and an authority in tls.clientCa.secretName" -}}
{{- end -}}
{{- if and (eq .auth.mode "mtls") (or .ingress.enabled .route.enabled) -}}
{{- fail "auth.mode is mtls, and an Ingress or a route would end TLS before the relay sees a certificate; set service.type to LoadBalancer instead" -}}
{{- end -}}
{{- if and (eq .auth.mode "mtls") .tls.keepPlain (not (.settings.legacy | default dict).enabled) -}}
{{- fail "auth.mode is mtls, so nobody can log in at the plain port; set tls.keepPlain to false" -}}
{{- end -}}
{{- if and .tls.enabled (not .tls.keepPlain) (or .ingress.enabled .route.enabled) -}}
{{- fail "an Ingress or a route ends TLS and goes on to the plain port; set tls.keepPlain, or service.type to LoadBalancer in their place" -}}
{{- end -}}
{{- if and .api.enabled (not .auth.apiKeys.secretName) (not .auth.insecure) -}}
{{- fail "the API is on and has no keys; name a Secret in auth.apiKeys.secretName, or set api.enabled to false" -}}
{{- end -}}
{{- if and .tls.enabled (not .tls.secretName) -}}
{{- fail "tls.enabled needs a certificate; name its Secret in tls.secretName" -}}
{{- end -}}
{{- if and .tls.clientCrl.secretName (not .tls.clientCa.secretName) -}}
{{- fail "tls.clientCrl.secretName is given without tls.clientCa.secretName, whose certificates it would revoke" -}}
{{- end -}}
{{- if and (not .tls.enabled) (or .tls.secretName .tls.clientCa.secretName) -}}
{{- fail "tls has a Secret and is not enabled; set tls.enabled, or leave the Secret out" -}}
{{- end -}}
{{- if and (eq .service.type "ClusterIP") (or .service.externalTrafficPolicy .service.loadBalancerSourceRanges) -}}
{{- fail "service.externalTrafficPolicy and service.loadBalancerSourceRanges are for a service.type of LoadBalancer; leave them out" -}}
{{- end -}}
{{- if and .ingress.enabled (not .ingress.hosts) -}}
{{- fail "ingress.enabled needs a host name in ingress.hosts" -}}
{{- end -}}
{{- if and .route.enabled (not .route.parentRefs) -}}
{{- fail "route.enabled needs a Gateway in route.parentRefs" -}}
{{- end -}}
{{- if .autoscaling.enabled -}}
{{- if gt (int64 .autoscaling.minReplicas) (int64 .autoscaling.maxReplicas) -}}
{{- fail "autoscaling.minReplicas is above autoscaling.maxReplicas" -}}
{{- end -}}
{{- if not (or .autoscaling.sessionsPerPod .autoscaling.cpuPercent) -}}
{{- fail "autoscaling.enabled needs something to go by: autoscaling.sessionsPerPod or autoscaling.cpuPercent" -}}
{{- end -}}
{{- end -}}
{{- if and (eq (toString .rollout.maxSurge) "0") (eq (toString .rollout.maxUnavailable) "0") -}}
{{- fail "rollout.maxSurge and rollout.maxUnavailable are both 0, so no new version could ever come" -}}
{{- end -}}
{{- end -}}
{{- end -}}
