import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { request } from 'node:https'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'

/** What the database's Secret holds: the API role's password, and that of the role that owns the schema. */
const KEYS = ['password', 'owner-password'] as const

/** 192 random bits, written in characters that need no escaping in a URL, a shell or SQL. */
const PASSWORD_BYTES = 24
const ATTEMPT_TIMEOUT_MS = 5_000
const RETRY_DELAY_MS = 500
const TOKEN_DIRECTORY = '/var/run/secrets/kubernetes.io/serviceaccount'

export type EnsureSecretOptions = {
  /** Where the Kubernetes API listens. */
  host: string
  port: number
  /** A service account's token and the certificate authority (PEM) of the API server. */
  token: string
  ca: string
  namespace: string
  name: string
  /** How long failures that pass (no connection, 401, 403, 429, 5xx) are tried again, in milliseconds; 30 s unless set. */
  timeoutMs?: number
}

type Answer = { status: number; body: { message?: string; data?: Record<string, string> } }

/**
 * Creates the database's Secret with random passwords if there is none. An existing one is never changed. Of several
 * callers at once exactly one creates it.
 * @throws with a sentence for the operator: no permission, no API server, a Secret that lacks a key
 */
export async function ensureSecret(options: EnsureSecretOptions): Promise<'created' | 'exists'> {
  const { namespace, name } = options
  const collection = `/api/v1/namespaces/${namespace}/secrets`
  const ask = persistentClient(options)

  const found = await ask('GET', `${collection}/${name}`)
  if (found.status === 200) {
    const missing = KEYS.filter((key) => !found.body.data?.[key])
    if (missing.length === 0) return 'exists'
    throw new Error(
      `Secret ${namespace}/${name} lacks ${missing.join(' and ')}. It was not made by ensure-secret: add what is ` +
        `missing (the passwords that the database knows), or delete the Secret if the database is still empty.`,
    )
  }
  if (found.status !== 404) throw refusal(namespace, `get Secret ${name}`, found)

  const made = await ask('POST', collection, manifest(namespace, name))
  if (made.status === 201) return 'created'
  if (made.status === 409) return 'exists' // another pod was first
  throw refusal(namespace, 'create Secrets', made)
}

/**
 * The options of a pod: the API server's address from its environment, token and authority from the mounted volume.
 * @throws where there is no such environment or volume
 */
export function inClusterOptions(env: Record<string, string | undefined>, directory = TOKEN_DIRECTORY) {
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port } = env
  if (!host || !port) throw new Error('KUBERNETES_SERVICE_HOST is not set: ensure-secret works only in a pod.')
  const read = (file: string) => {
    try {
      return readFileSync(`${directory}/${file}`, 'utf8').trim()
    } catch (cause) {
      const need = 'this container needs a projected service account token'
      throw new Error(`${directory}/${file} cannot be read: ${need}.`, { cause })
    }
  }
  return {
    host,
    port: Number(port),
    token: read('token'),
    ca: read('ca.crt'),
    namespace: read('namespace'),
    name: env.SECRET_NAME || 'users-db',
  }
}

function manifest(namespace: string, name: string) {
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: {
      name,
      namespace,
      labels: {
        'app.kubernetes.io/name': name,
        'app.kubernetes.io/part-of': 'users-api',
        'app.kubernetes.io/managed-by': 'ensure-secret',
      },
    },
    type: 'Opaque',
    stringData: Object.fromEntries(KEYS.map((key) => [key, randomBytes(PASSWORD_BYTES).toString('base64url')])),
  }
}

/** Calls until the answer is one to act on, or time is over. A new Role takes a moment to be known: so 401 and 403 too. */
function persistentClient(options: EnsureSecretOptions) {
  const deadline = Date.now() + (options.timeoutMs ?? 30_000)
  return async function ask(method: 'GET' | 'POST', path: string, body?: object): Promise<Answer> {
    for (;;) {
      const outcome = await call(options, method, path, body).catch((error: Error) => error)
      const failed = outcome instanceof Error
      const passing = failed || [401, 403, 429].includes(outcome.status) || outcome.status >= 500
      if (!passing || Date.now() + RETRY_DELAY_MS > deadline) {
        if (failed) throw outcome
        return outcome
      }
      await sleep(RETRY_DELAY_MS * (0.75 + Math.random() / 2)) // pods that start together do not knock together
    }
  }
}

/** @throws with a sentence for the operator where no JSON comes in time */
async function call(options: EnsureSecretOptions, method: string, path: string, body?: object): Promise<Answer> {
  const { host, port, token, ca } = options
  const signal = AbortSignal.timeout(ATTEMPT_TIMEOUT_MS)
  const headers = { authorization: `Bearer ${token}`, accept: 'application/json', 'content-type': 'application/json' }
  try {
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const req = request({ host, port, method, path, ca, headers, signal, agent: false }, resolve)
      req.on('error', reject).end(body && JSON.stringify(body))
    })
    const { statusCode: status = 0 } = response
    const json = await text(response)
    try {
      return { status, body: JSON.parse(json) }
    } catch {
      throw new Error(`HTTP ${status}, and no JSON`)
    }
  } catch (cause) {
    const reason = signal.aborted ? `no answer in ${ATTEMPT_TIMEOUT_MS} ms` : (cause as Error).message
    throw new Error(`The Kubernetes API at ${host}:${port} cannot be reached: ${reason}`, { cause })
  }
}

function refusal(namespace: string, deed: string, { status, body }: Answer): Error {
  const said = `The Kubernetes API said: ${body.message ?? `HTTP ${status}`}`
  if (status === 401) return new Error(`The service account's token is not accepted. ${said}`)
  if (status !== 403) return new Error(`ensure-secret cannot ${deed} in namespace ${namespace}. ${said}`)
  return new Error(
    `The service account may not ${deed} in namespace ${namespace}: apply the Role and RoleBinding ensure-secret of ` +
      `kustomize/base. ${said}`,
  )
}
