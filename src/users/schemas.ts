import * as z from 'zod'
import { emailAddress, plainText, soughtEmail, soughtPrefix, soughtText, time } from '../fields.ts'
import { ID, listQuery } from '../http/list.ts'

export const USERNAME_MAX_LENGTH = 80

/** A user, in the words of problems and of the description. */
export const NOUN = 'user'

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

/** The body of PATCH: a JSON merge patch (RFC 7396). Neither member can be removed, so `null` is refused. */
export const UserPatch = NewUser.partial().meta({ description: 'A JSON merge patch (RFC 7396).' })

/** The query of `GET /users`. */
export const ListQuery = listQuery({
  username: soughtText(USERNAME_MAX_LENGTH)
    .optional()
    .meta({ description: 'Only the user with this name, whatever its case.', examples: ['Alice'] }),
  email: soughtEmail
    .optional()
    .meta({ description: 'Only the user with this address, whatever its case.', examples: ['alice@example.com'] }),
  usernamePrefix: soughtPrefix(USERNAME_MAX_LENGTH)
    .optional()
    .meta({ description: 'Only users whose names begin so, whatever their case, by name.', examples: ['Al'] }),
}).refine(({ usernamePrefix, username, email }) => usernamePrefix === undefined || (username ?? email) === undefined, {
  path: ['usernamePrefix'],
  error: 'does not go with username or email',
})

/** What the description of the service says of users. */
export const describeUsers = () => ({
  name: NOUN,
  plural: 'users',
  query: ListQuery,
  input: NewUser,
  patch: UserPatch,
  item: z.object({ id: z.int().meta(ID), username, email, createdAt: time, updatedAt: time }),
})

export type User = z.output<ReturnType<typeof describeUsers>['item']>
export type ListQuery = z.output<typeof ListQuery>
export type NewUser = z.output<typeof NewUser>
export type UserPatch = z.output<typeof UserPatch>
