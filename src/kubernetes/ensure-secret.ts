import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { isIPv6 } from 'node:net'
import { setDefaultCACertificates } from 'node:tls'
import * as z from 'zod'
import { retry, TransientError } from '../retry.ts'

/** What the database's Secret holds: the API role's password, and that of the role that owns the schema. */
const KEYS = ['password', 'owner-password']
/** 192 random bits, written in characters that need no escaping in a URL, a shell or SQL. */
const PASSWORD_BYTES = 24
const ATTEMPT_TIMEOUT_MS = 5000
const TOKEN_DIRECTORY = '/var/run/secrets/kubernetes.io/serviceaccount'

/**
 * The options of a pod: the API server's address from its environment, token and authority from the mounted volume.
 * @throws where there is no such environment or volume
 */
export function inClusterOptions(env: Record<string, string | undefined>, directory = TOKEN_DIRECTORY) {
  const { KUBERNETES_SERVICE_HOST: host = '', KUBERNETES_SERVICE_PORT: port } = env
  if (!host || !existsSync(`${directory}/token`)) {
    throw new Error(`ensure-secret works only in a pod that has a service account's token in ${directory}.`)
  }
  const read = (file: string) => readFileSync(`${directory}/${file}`, 'utf8').trim()
  return {
    /** URL of the API server. */
    server: `https://${isIPv6(host) ? `[${host}]` : host}:${port}`,
    /** PEM of the only certificate authority that the process trusts from now on. */
    ca: read('ca.crt'),
    token: read('token'),
    namespace: read('namespace'),
    /** The Secret's. */
    name: env.SECRET_NAME || 'users-db',
    /** How long failures that pass (no connection, 401, 403, 429, 5xx) are tried again, in ms. */
    waitMs: 30_000,
  }
}

export type EnsureSecretOptions = ReturnType<typeof inClusterOptions>

/** A Secret, or why there is none. */
const Body = z.object({ data: z.record(z.string(), z.string()).optional(), message: z.string().optional() })

/**
 * Creates the database's Secret with random passwords if there is none. An existing one is never changed. Of several
 * callers at once exactly one creates it.
 * @throws with a sentence for the operator: no permission, no API server, a Secret that lacks a key
 */
export async function ensureSecret(options: EnsureSecretOptions): Promise<'created' | 'exists'> {
  const { ca, waitMs, namespace, name } = options
  setDefaultCACertificates([ca])
  return retry(waitMs, async () => {
    const found = await ask(options, `get Secret ${name}`, [200, 404], `/${name}`)
    if (found.status === 404) {
      const made = await ask(options, 'create Secrets', [201, 409], '', manifest(name))
      return made.status === 201 ? 'created' : 'exists' // 409: another pod was first
    }
    const missing = KEYS.filter((key) => !found.data?.[key])
    if (missing.length === 0) return 'exists'
    throw new Error(
      `Secret ${namespace}/${name} lacks ${missing.join(' and ')}. It was not made by ensure-secret: add what is ` +
        `missing (the passwords that the database knows), or delete the Secret if the database is still empty.`,
    )
  })
}

const manifest = (name: string) => ({
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: {
    name,
    labels: {
      'app.kubernetes.io/name': name,
      'app.kubernetes.io/part-of': 'users-api',
      'app.kubernetes.io/managed-by': 'ensure-secret',
    },
  },
  stringData: Object.fromEntries(KEYS.map((key) => [key, randomBytes(PASSWORD_BYTES).toString('base64url')])),
})

/**
 * Reads about the namespace's Secrets, or creates one that is given.
 * @returns the answer, if its status is one of `expected`
 * @throws with a sentence for the operator; TransientError where trying again may help
 */
async function ask(options: EnsureSecretOptions, deed: string, expected: number[], path: string, secret?: object) {
  const { server, token, namespace } = options
  const url = `${server}/api/v1/namespaces/${namespace}/secrets${path}`
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
  const signal = AbortSignal.timeout(ATTEMPT_TIMEOUT_MS)
  const answer = await fetch(url, { ...(secret && { method: 'POST', body: JSON.stringify(secret) }), headers, signal })
    .then(async (response) => ({ status: response.status, ...Body.parse(await response.json()) }))
    .catch((error) => {
      // A TypeError of fetch says only that it failed, and its cause says why.
      throw new TransientError(`The Kubernetes API at ${server} cannot be reached: ${error.cause ?? error}`)
    })
  const { status, message = 'no reason given' } = answer
  if (expected.includes(status)) return answer
  // A new Role takes a moment to be known: so 401 and 403 too.
  const Reason = [401, 403, 429].includes(status) || status >= 500 ? TransientError : Error
  const advice = status === 403 ? ' Apply the Role and RoleBinding ensure-secret of kustomize/base.' : ''
  throw new Reason(`ensure-secret cannot ${deed} in namespace ${namespace}: ${message} (${status}).${advice}`)
}
