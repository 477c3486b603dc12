import * as z from 'zod'
import { emailAddress, plainText, soughtEmail, soughtPrefix, soughtText, time } from '../fields.ts'
import { MADE_HERE } from '../http/bulk.ts'
import { ID, listQuery } from '../http/list.ts'
import type { ResourceOptions } from '../http/openapi.ts'

export const USERNAME_MAX_LENGTH = 80

/** What no two users share, and what a person fills in. */
export const FIELDS = ['username', 'email'] as const
export type Field = (typeof FIELDS)[number]

const username = plainText(USERNAME_MAX_LENGTH).meta({
  description: 'Unique, whatever its case. Kept in Unicode normal form C.',
  examples: ['Alice'],
})

const email = emailAddress.meta({
  description: 'Unique, whatever its case. The domain is kept in Unicode and lower case, the rest as given.',
})

/** The body of POST and PUT. */
export const NewUser = z.strictObject({ username, email }, 'must be a JSON object')

/** A line of a POST. */
export const UserLine = NewUser.extend(MADE_HERE)

/** The body of PATCH: a JSON merge patch (RFC 7396). Neither member can be removed, so `null` is refused. */
export const UserPatch = NewUser.partial().meta({ description: 'A JSON merge patch (RFC 7396).' })

/** What goes out. Made when it is to be described, for nothing else asks for it. */
export const userAnswer = () => z.object({ id: z.int().meta(ID), username, email, createdAt: time, updatedAt: time })

/** The query of `GET /users`. */
export const ListQuery = listQuery({
  username: soughtText(USERNAME_MAX_LENGTH)
    .optional()
    .meta({ description: 'Only the user with this name, whatever its case.', examples: ['Alice'] }),
  email: soughtEmail
    // No address has a space, but that is what a + stands for in a query.
    .refine((email) => !email.includes(' '), 'must not have a space: write + as %2B')
    .optional()
    .meta({
      description: 'Only the user with this address, whatever its case.',
      pattern: '^[^\\x00-\\x20\\x7f-\\x9f]*$',
      examples: ['alice@example.com'],
    }),
  usernamePrefix: soughtPrefix(USERNAME_MAX_LENGTH)
    .optional()
    .meta({ description: 'Only users whose names begin so, whatever their case, by name.', examples: ['Al'] }),
}).refine(({ usernamePrefix, username, email }) => usernamePrefix === undefined || (username ?? email) === undefined, {
  path: ['usernamePrefix'],
  error: 'does not go with username or email',
})

/** What the description of the service says of users. */
export const describeUsers = (): ResourceOptions => ({
  name: 'user',
  plural: 'users',
  query: ListQuery,
  input: NewUser,
  patch: UserPatch,
  item: userAnswer(),
})

export type User = z.output<ReturnType<typeof userAnswer>>
export type ListQuery = z.output<typeof ListQuery>
export type NewUser = z.output<typeof NewUser>
export type UserPatch = z.output<typeof UserPatch>
