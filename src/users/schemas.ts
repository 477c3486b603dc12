import * as z from 'zod'
import { MAX_ID } from '../db/columns.ts'
import { listParameters, once } from '../http/list.ts'

export const USERNAME_MAX_LENGTH = 80
export const EMAIL_MAX_LENGTH = 254

/** Length in Unicode code points, as PostgreSQL and JSON Schema count it; most text is short enough in code units, too. */
const lengthUpTo = (maximum: number) => (value: string) => value.length <= maximum || [...value].length <= maximum

const text = z.string({ error: 'must be a string' }).refine((value) => value.isWellFormed(), {
  error: 'must be well-formed Unicode: it has a lone surrogate',
  abort: true,
})

/** PostgreSQL's text cannot hold U+0000, and nobody's name has the others. */
const isPlain = (value: string) => !/\p{Cc}/u.test(value)
const PLAIN = 'must not have control characters'

/** No text needs more code units than this for each of its characters in normal form C: it may come as 4, each of 2. */
const UNITS_MAX = 8

/** What cannot pass whatever it holds is refused before it is looked at: to normalize a long text can take seconds. */
const atMost = (maximum: number) => ({ error: `must have at most ${maximum} characters`, abort: true })

const username = text
  .max(UNITS_MAX * USERNAME_MAX_LENGTH, atMost(USERNAME_MAX_LENGTH))
  .normalize('NFC')
  .refine(isPlain, PLAIN)
  .refine((value) => value !== '', 'must not be empty')
  .refine((value) => value === value.trim(), 'must not start or end with white space')
  .refine(lengthUpTo(USERNAME_MAX_LENGTH), atMost(USERNAME_MAX_LENGTH))
  .meta({
    description: 'Unique, whatever its case. Kept in Unicode normal form C.',
    minLength: 1,
    maxLength: USERNAME_MAX_LENGTH,
    examples: ['Alice'],
  })

const email = text
  .max(UNITS_MAX * EMAIL_MAX_LENGTH, atMost(EMAIL_MAX_LENGTH))
  .refine(isPlain, PLAIN)
  .refine(lengthUpTo(EMAIL_MAX_LENGTH), atMost(EMAIL_MAX_LENGTH))
  .refine((value) => z.regexes.unicodeEmail.test(value), 'must be an email address')
  .meta({
    description: 'Unique, whatever its case. Kept as given.',
    minLength: 3,
    maxLength: EMAIL_MAX_LENGTH,
    examples: ['alice@example.com'],
  })

const body = { error: 'must be a JSON object' }

/** The body of POST and PUT. */
export const NewUser = z.strictObject({ username, email }, body)

/** The body of PATCH: a JSON merge patch (RFC 7396). Neither member can be removed, so `null` is refused. */
export const UserPatch = z
  .strictObject({ username: username.optional(), email: email.optional() }, body)
  .meta({ description: 'A JSON merge patch (RFC 7396).' })

/** What goes out, by its name. Made when it is to be described, for nothing else asks for it. */
export function userAnswers() {
  const time = z.string().meta({
    description: 'RFC 3339, in UTC, with milliseconds.',
    format: 'date-time',
    examples: ['2026-01-02T03:04:05.678Z'],
  })
  const id = z
    .int()
    .min(1)
    .max(MAX_ID)
    .meta({ examples: [1] })
  const User = z.object({ id, username, email, createdAt: time, updatedAt: time })
  const next = z.string().nullable().meta({ description: 'The cursor of the next page; null on the last.' })
  return { User, UserPage: z.object({ users: z.array(User), next }) }
}

/** Text to look up. PostgreSQL normalizes it, so it is bounded here, too. */
const sought = (maximum: number) =>
  once('text')
    .max(UNITS_MAX * maximum, atMost(maximum))
    .refine(isPlain, PLAIN)
    .optional()

/** The query of `GET /users`. */
export const ListQuery = z.strictObject({
  ...listParameters,
  username: sought(USERNAME_MAX_LENGTH),
  // No address has a space, but that is what a + stands for in a query.
  email: sought(EMAIL_MAX_LENGTH).refine((email) => !email?.includes(' '), 'must not have a space: write + as %2B'),
})

export type User = z.output<ReturnType<typeof userAnswers>['User']>
export type NewUser = z.output<typeof NewUser>
export type UserPatch = z.output<typeof UserPatch>
