import { isUtf8 } from 'node:buffer'
import { zValidator } from '@hono/zod-validator'
import type { Context } from 'hono'
import type * as z from 'zod'
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

/** Our schemas wait for nothing, and parse faster when they need not. */
const sync = { validationFunction: (schema: z.ZodType, value: unknown) => schema.safeParse(value) }

/** Validates the path's parameters or the query: 400 names what is wrong. */
export const valid = <T extends 'param' | 'query', Out, In>(target: T, schema: z.ZodType<Out, In>) =>
  zValidator(
    target,
    schema,
    (result) => {
      if (!result.success) throw new Problem(400, faultsOf(result.error.issues, 'parameter').detail)
    },
    sync,
  )

function assertMediaType(c: Context, accepted: readonly string[]) {
  const header = c.req.header('content-type') ?? ''
  const mediaType = header.replace(/;.*/, '').trim().toLowerCase()
  if (accepted.includes(mediaType) && !/;\s*charset=(?!"?utf-?8\b)/i.test(header)) return
  const list = accepted.join(', ')
  // RFC 9110, section 15.5.16: the answer says what would have been taken.
  const headers = { Accept: list, ...(c.req.method === 'PATCH' && { 'Accept-Patch': list }) }
  throw new Problem(415, `The body must be ${list} in UTF-8.`, { headers })
}

/**
 * Validates a JSON body: 415 for another media type, 400 for what is not JSON in UTF-8, 422 with a JSON Pointer
 * to each fault for what breaks the schema.
 */
export const validJson = <Out, In>(schema: z.ZodType<Out, In>, accepted: readonly string[] = ['application/json']) =>
  zValidator(
    'json',
    schema,
    (result, c: Context) => {
      assertMediaType(c, accepted)
      if (!isUtf8(c.get('body'))) throw new Problem(400, 'The body is not valid UTF-8.')
      if (result.success) return
      const { errors, detail } = faultsOf(result.error.issues, 'member')
      throw new Problem(422, detail, { type: ProblemType.validation, errors })
    },
    sync,
  )
