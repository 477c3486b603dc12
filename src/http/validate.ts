import { isUtf8 } from 'node:buffer'
import { zValidator } from '@hono/zod-validator'
import type { Context } from 'hono'
import * as z from 'zod'
import { MAX_ID, NO_ID } from '../db/columns.ts'
import type { Env } from './env.ts'
import { Problem } from './problem.ts'

/** A body may have thousands of faults under names of any length: an answer has so many, and so much of a name. */
const FAULTS_MAX = 20
const NAME_MAX_LENGTH = 100

const cut = (name: string) => (name.length > NAME_MAX_LENGTH ? `${name.slice(0, NAME_MAX_LENGTH)}…` : name)

const pointerOf = (path: readonly PropertyKey[]) =>
  path.map((key) => `/${cut(String(key)).toWellFormed().replaceAll('~', '~0').replaceAll('/', '~1')}`).join('')

/** 422 with a JSON Pointer to each of the first faults, and a sentence that names them and counts the others. */
export function invalid(issues: readonly z.core.$ZodIssue[]): Problem {
  const faults = issues.flatMap((issue) =>
    issue.code === 'unrecognized_keys'
      ? issue.keys.map((key) => ({ path: [...issue.path, key], detail: 'is not known' }))
      : [{ path: issue.path, detail: issue.message }],
  )
  const errors = faults.slice(0, FAULTS_MAX).map(({ path, detail }) => ({ pointer: pointerOf(path), detail }))
  const sentences = errors.map(({ pointer, detail }) => `${pointer.slice(1) || 'the body'} ${detail}`)
  if (faults.length > FAULTS_MAX) sentences.push(`and ${faults.length - FAULTS_MAX} more`)
  return new Problem(422, sentences.join('; '), { type: 'validation', errors })
}

export const JSON_MEDIA_TYPES = ['application/json']
export const NDJSON_MEDIA_TYPE = 'application/x-ndjson'
/** What POST takes where `createEachLine` goes before it. */
export const POST_MEDIA_TYPES = [...JSON_MEDIA_TYPES, NDJSON_MEDIA_TYPE]
/** What a JSON merge patch (RFC 7396) may be sent as. */
export const PATCH_MEDIA_TYPES = ['application/merge-patch+json', ...JSON_MEDIA_TYPES]

/** 415 that says what would have been taken (RFC 9110, section 15.5.16; RFC 5789, section 2.2). */
export function unsupported(mediaTypes: string[]): Problem {
  const Accept = mediaTypes.join(', ')
  const headers = { Accept, ...(mediaTypes === PATCH_MEDIA_TYPES && { 'Accept-Patch': Accept }) }
  return new Problem(415, `The body must be ${Accept} in UTF-8.`, { headers })
}

/** Whether the body has one of these media types, in UTF-8. */
function hasMediaType(c: Context, mediaTypes: string[]): boolean {
  const header = c.req.header('content-type') ?? ''
  const mediaType = header.replace(/;.*/, '').trim().toLowerCase()
  return mediaTypes.includes(mediaType) && !/;\s*charset=(?!"?utf-?8\b)/i.test(header)
}

/** Whether lines are posted, which are read as they come. */
export const postsLines = (c: Context) => c.req.method === 'POST' && hasMediaType(c, [NDJSON_MEDIA_TYPE])

/**
 * Validates the path's parameters or the query: 400 names what is wrong. Or a JSON body: 415 for another media type,
 * 400 for what is not JSON in UTF-8, 422 with a JSON Pointer to each fault.
 */
export const valid = <T extends 'param' | 'query' | 'json', Out, In>(
  target: T,
  schema: z.ZodType<Out, In>,
  mediaTypes = JSON_MEDIA_TYPES,
) =>
  zValidator(
    target,
    schema,
    (result, c: Context) => {
      const isBody = target === 'json'
      if (isBody && !hasMediaType(c, mediaTypes)) throw unsupported(mediaTypes)
      if (isBody && !isUtf8(c.get('body'))) throw new Problem(400, 'The body is not valid UTF-8.')
      if (result.success) return
      const problem = invalid(result.error.issues)
      throw isBody ? problem : new Problem(400, problem.message)
    },
    // Our schemas wait for nothing, and parse faster when they need not.
    { validationFunction: (schema, value) => schema.safeParse(value) },
  )

const pathId = z
  .string()
  .refine((id) => /^[1-9][0-9]*$/.test(id), 'must be a positive whole number')
  .transform((id) => (Number(id) <= MAX_ID ? Number(id) : NO_ID))
/** Validates the `id` of a path in its one decimal form. One beyond the column's range passes, and is simply not found. */
export const validId = valid('param', z.object({ id: pathId }))

/** The context of a handler behind `validId`. */
export type ItemContext = Context<Env, string, { out: { param: { id: number } } }>
