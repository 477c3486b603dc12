import { zValidator } from '@hono/zod-validator'
import type { Context, MiddlewareHandler } from 'hono'
import { createMiddleware } from 'hono/factory'
import type * as z from 'zod'
import type { Env } from './env.ts'
import { type Fault, Problem, ProblemType } from './problem.ts'

type Issue = z.core.$ZodIssue

/** A body may have thousands of faults under names of any length: an answer has so many, and so much of a name. */
const FAULTS_MAX = 20
const NAME_MAX_LENGTH = 100

const shown = (key: PropertyKey) => {
  const name = String(key)
  return name.length > NAME_MAX_LENGTH ? `${name.slice(0, NAME_MAX_LENGTH)}…` : name
}

const pointerOf = (path: readonly PropertyKey[]) =>
  path.map((key) => `/${shown(key).toWellFormed().replaceAll('~', '~0').replaceAll('/', '~1')}`).join('')

/** The first faults, and a sentence that names them and counts the others. */
function faultsOf(issues: readonly Issue[], kind: 'member' | 'parameter') {
  let count = 0
  const errors: Fault[] = []
  for (const issue of issues) {
    const keys = issue.code === 'unrecognized_keys' ? issue.keys : undefined
    const paths = keys?.slice(0, FAULTS_MAX).map((key) => [...issue.path, key]) ?? [issue.path]
    const detail = keys ? `is not a known ${kind}` : issue.message
    errors.push(...paths.map((path) => ({ pointer: pointerOf(path), detail })))
    count += keys?.length ?? 1
  }
  errors.length = Math.min(errors.length, FAULTS_MAX)
  const sentences = errors.map(({ pointer, detail }) => `${pointer.slice(1) || 'the body'} ${detail}`)
  if (count > errors.length) sentences.push(`and ${count - errors.length} more`)
  return { errors, detail: sentences.join('; ') }
}

const sync = { validationFunction: <S extends z.ZodType, V>(schema: S, value: V) => schema.safeParse(value) }

/** Hono takes a % that stands for nothing as it is: 400, as in the path. */
function assertDecodable(url: string) {
  const query = url.slice(url.indexOf('?'))
  if (!query.includes('%')) return
  try {
    decodeURIComponent(query)
  } catch {
    throw new Problem(400, 'The query has a % that is not part of percent-encoded UTF-8.')
  }
}

/** Validates the path's parameters or the query: 400 names what is wrong. */
export const valid = <T extends 'param' | 'query', S extends z.ZodObject>(target: T, schema: S) =>
  zValidator(
    target,
    schema,
    (result, c) => {
      if (target === 'query') assertDecodable(c.req.url)
      if (result.success) return
      throw new Problem(400, faultsOf(result.error.issues as readonly Issue[], 'parameter').detail)
    },
    sync as never,
  )

/** No body of ours nests deeper than 2; JSON.parse itself knows no limit. */
const DEPTH_MAX = 32

function nestsTooDeep(json: string): boolean {
  if (json.length <= 2 * DEPTH_MAX) return false
  let depth = 0
  let inString = false
  for (let i = 0; i < json.length; i++) {
    const code = json.charCodeAt(i)
    if (inString) {
      if (code === 92) i++
      else if (code === 34) inString = false
    } else if (code === 34) inString = true
    else if (code === 91 || code === 123) {
      if (++depth > DEPTH_MAX) return true
    } else if (code === 93 || code === 125) depth--
  }
  return false
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

function parseJson(bytes: Uint8Array): unknown {
  let text: string
  try {
    text = utf8.decode(bytes)
  } catch {
    throw new Problem(400, 'The body is not valid UTF-8.')
  }
  if (text === '') throw new Problem(400, 'The body is empty: it must be JSON.')
  if (nestsTooDeep(text)) throw new Problem(400, `The body nests deeper than ${DEPTH_MAX} levels.`)
  try {
    return JSON.parse(text)
  } catch {
    throw new Problem(400, 'The body is not valid JSON.')
  }
}

const parameters = (mediaType: string) => mediaType.split(';').map((part) => part.trim().toLowerCase())

function checkMediaType(c: Context<Env>, accepted: readonly string[]) {
  const [type = '', ...rest] = parameters(c.req.header('content-type') ?? '')
  const charset = rest.find((parameter) => parameter.startsWith('charset='))
  const coding = c.req.header('content-encoding')?.toLowerCase() ?? 'identity'
  if (accepted.includes(type) && (!charset || /^charset="?utf-?8"?$/.test(charset)) && coding === 'identity') return
  const list = accepted.join(', ')
  const detail = coding === 'identity' ? `The body must be ${list} in UTF-8.` : 'The body must not be compressed.'
  // RFC 9110, section 15.5.16: the answer says what would have been taken.
  const headers: Record<string, string> = coding === 'identity' ? { Accept: list } : { 'Accept-Encoding': 'identity' }
  if (c.req.method === 'PATCH') headers['Accept-Patch'] = list
  throw new Problem(415, detail, { headers })
}

type JsonInput<S extends z.ZodType> = { in: { json: z.input<S> }; out: { json: z.output<S> } }

/**
 * Validates a JSON body: 415 for another media type, 400 for what is not JSON in UTF-8, 422 with a JSON Pointer
 * to each fault for what breaks the schema.
 */
export function validJson<S extends z.ZodType, P extends string = string>(
  schema: S,
  accepted: readonly string[] = ['application/json'],
): MiddlewareHandler<Env, P, JsonInput<S>> {
  return createMiddleware<Env, P, JsonInput<S>>(async function validJson(c, next) {
    checkMediaType(c, accepted)
    const result = schema.safeParse(parseJson(c.get('body')))
    if (!result.success) {
      const { errors, detail } = faultsOf(result.error.issues, 'member')
      throw new Problem(422, detail, { type: ProblemType.validation, errors })
    }
    c.req.addValidatedData('json', result.data as object)
    return next()
  })
}
