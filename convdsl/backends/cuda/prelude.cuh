// What only a GPU has. Whoever runs the source elsewhere puts something else in the place of this.
